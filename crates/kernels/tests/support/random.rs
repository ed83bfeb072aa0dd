//! Random calls: every rule and head option, shapes that fit nothing, positions anywhere.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Normal};
use s2_attention_kernels::{AttentionProblem, AttentionShape, SequenceSpan};
use s2_attention_pattern::{BlockMask, PatternConfig, Rule};

use super::{Tensors, rows};

/// The largest standard deviation that the tight bars on `out` and `lse` hold for; far from a uniform softmax.
pub const STD: f32 = 1.5;

/// A call and its tensors.
#[derive(Debug)]
pub struct Case {
    pub problem: AttentionProblem,
    pub tensors: Tensors,
}

/// What GPU kernels are compiled for, beside the storage type and whether a pattern is a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class {
    pub block: usize,
    pub head_dim: usize,
    pub value_dim: usize,
}

impl Class {
    pub const fn of(block: usize, head_dim: usize, value_dim: usize) -> Self {
        Self {
            block,
            head_dim,
            value_dim,
        }
    }
}

/// Blocks below, at, above and astride a tile, aligned and not; widths that differ, with whole and half slices; wide heads
/// last.
pub const CLASSES: [Class; 12] = [
    Class::of(16, 16, 16),
    Class::of(5, 48, 24),
    Class::of(64, 64, 64),
    Class::of(1, 8, 8),
    Class::of(200, 80, 96),
    Class::of(24, 40, 16),
    Class::of(128, 128, 128),
    Class::of(16, 64, 64),
    Class::of(32, 128, 128),
    Class::of(64, 256, 256),
    Class::of(64, 192, 128),
    Class::of(32, 160, 200),
];

/// The call of that seed.
pub fn case(seed: u64) -> Case {
    let rng = &mut StdRng::seed_from_u64(seed);
    let block = block_size(rng);
    let dims = |rng: &mut StdRng| [rng.random_range(1..=80), rng.random_range(1..=80)];
    draw(rng, block, dims)
}

/// The call of that seed, of a class: everything else is random.
pub fn case_of(class: Class, seed: u64) -> Case {
    let rng = &mut StdRng::seed_from_u64(seed);
    draw(rng, class.block, |_| [class.head_dim, class.value_dim])
}

fn draw(rng: &mut StdRng, block: usize, dims: impl Fn(&mut StdRng) -> [usize; 2]) -> Case {
    let spans_given = rng.random_bool(0.7);
    let seq_kv = rng.random_range(1..=130);
    let longest_q = if spans_given { 130 } else { seq_kv };
    let seq_q = rng.random_range(1..=longest_q);
    let batch = rng.random_range(1..=2);
    let spans = spans_given.then(|| {
        (0..batch)
            .map(|_| span(rng, block, seq_q, seq_kv))
            .collect()
    });
    let config = pattern(rng, block, blocks_reached(&spans, seq_kv, block));
    let pattern = config
        .build()
        .unwrap_or_else(|error| panic!("{error}: {config:?}"));
    let [head_dim, value_dim] = dims(rng);
    let shape = AttentionShape {
        batch,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q,
        seq_kv,
        head_dim,
        value_dim,
    };
    let factors = [-1.0, -0.3, 0.0, 0.5, 1.0];
    let scale = rng
        .random_bool(0.5)
        .then(|| factors[rng.random_range(0..factors.len())] / (shape.head_dim as f64).sqrt());
    let tensors = tensors(&shape, STD, rng.random_bool(0.6), rng);
    let problem = AttentionProblem::new(shape, &pattern, scale, spans).unwrap();
    Case { problem, tensors }
}

/// Normal inputs of standard deviation `std`, with or without a gradient of lse.
pub fn tensors(shape: &AttentionShape, std: f32, with_d_lse: bool, rng: &mut StdRng) -> Tensors {
    let mut normal = |len: usize, std: f32| -> Vec<f32> {
        let normal = Normal::new(0.0, std).unwrap();
        normal.sample_iter(&mut *rng).take(len).collect()
    };
    let keys = shape.batch * shape.num_kv_heads * shape.seq_kv;
    Tensors {
        q: normal(rows(shape) * shape.head_dim, std),
        k: normal(keys * shape.head_dim, std),
        v: normal(keys * shape.value_dim, std),
        d_out: normal(rows(shape) * shape.value_dim, 1.0),
        d_lse: with_d_lse.then(|| normal(rows(shape), 1.0)),
    }
}

/// Mostly small blocks; also powers of two and sizes around and above 64 and 128.
fn block_size(rng: &mut StdRng) -> usize {
    match rng.random_range(0..4) {
        0 => 1 << rng.random_range(0..8),
        1 => rng.random_range(1..=200),
        _ => rng.random_range(1..=24),
    }
}

/// Keys before, around and after the queries, and padding behind both.
fn span(rng: &mut StdRng, block: usize, seq_q: usize, seq_kv: usize) -> SequenceSpan {
    let reach = 2 * block + 40;
    let mut len = |longest: usize| match rng.random_range(0..10) {
        0 => 0,
        1..5 => rng.random_range(1..=longest),
        _ => longest,
    };
    SequenceSpan {
        q_len: len(seq_q),
        kv_len: len(seq_kv),
        q_start: rng.random_range(0..reach),
        kv_start: if rng.random_bool(0.3) {
            0
        } else {
            rng.random_range(0..reach)
        },
    }
}

/// Blocks up to the last query and key.
fn blocks_reached(spans: &Option<Vec<SequenceSpan>>, seq_kv: usize, block: usize) -> usize {
    let ends = spans.iter().flatten();
    let ends = ends.flat_map(|span| [span.q_start + span.q_len, span.kv_start + span.kv_len]);
    ends.chain([seq_kv]).max().unwrap().div_ceil(block)
}

/// A pattern over at least `blocks` blocks.
pub fn pattern(rng: &mut StdRng, block: usize, blocks: usize) -> PatternConfig {
    let num_kv_heads = rng.random_range(1..=3);
    let num_heads = num_kv_heads * rng.random_range(1..=3);
    let group = num_heads / num_kv_heads;
    let mut config = PatternConfig::dense(block, num_heads).with_num_kv_heads(num_kv_heads);
    config.per_kv_head = rng.random_bool(0.4);
    let pattern_heads = config.pattern_heads();
    config.head_offset = rng.random_range(-4..=4);
    config.homogeneous = rng.random_bool(0.15);
    if !config.homogeneous && rng.random_bool(0.4) {
        config.head_step = Some(rng.random_range(-3..=3));
    }
    if rng.random_bool(0.2) {
        config.dense_heads = rng.random_range(0..=pattern_heads);
    }
    if rng.random_bool(0.2) {
        let start = rng.random_range(0..num_kv_heads);
        let end = rng.random_range(start + 1..=num_kv_heads);
        config.active_heads = Some(start * group..end * group);
    }
    let table_blocks = blocks.max(1) + rng.random_range(0..2);
    config.table_blocks = Some(table_blocks);
    let mut rules = Rules {
        rng,
        pattern_heads,
        table_blocks,
    };
    config.rule = rules.any();
    config
}

/// Draws rules.
struct Rules<'a> {
    rng: &'a mut StdRng,
    pattern_heads: usize,
    table_blocks: usize,
}

impl Rules<'_> {
    fn any(&mut self) -> Rule {
        if self.rng.random_bool(0.2) {
            let rules = (0..self.pattern_heads).map(|_| {
                let causal = self.rng.random_bool(0.6);
                self.rule(causal)
            });
            return Rule::PerHead(rules.collect());
        }
        let causal = self.rng.random_bool(0.6);
        self.rule(causal)
    }

    /// A named rule, a custom mask or a composition.
    fn rule(&mut self, causal: bool) -> Rule {
        match self.rng.random_range(0..10) {
            0 => self.leaf(causal).union(self.leaf(causal)),
            1 if causal => {
                let other = self.rng.random();
                self.leaf(true).intersection(self.leaf(other))
            }
            1 => self.leaf(false).intersection(self.leaf(false)),
            2 if causal => self.leaf(false).causal_clamp(),
            _ => self.leaf(causal),
        }
    }

    fn leaf(&mut self, causal: bool) -> Rule {
        let [a, b, vert_stride] = [3, 3, 6].map(|most| self.rng.random_range(1..=most));
        let right = (!causal).then_some(b);
        match (self.rng.random_range(0..7), causal) {
            (0, _) => Rule::SlidingWindow { left: a, right },
            (1, _) => Rule::SinkWindow {
                sink_blocks: self.rng.random_range(1..=2),
                left: a,
                right,
            },
            (2, _) => Rule::Strided {
                vert_stride,
                causal,
            },
            (3, _) => Rule::Custom(self.mask(causal)),
            (4, _) if self.rng.random_bool(0.3) => Rule::Dense { causal },
            (4 | 5, true) => Rule::LocalStride {
                local_blocks: a,
                vert_stride,
            },
            (_, true) => Rule::Ranges {
                strides: vec![1, self.rng.random_range(1..=4), vert_stride],
                range_blocks: vec![a, a + b],
            },
            (4 | 5, false) => Rule::BidirectionalAbsolute {
                local_left: a,
                local_right: b,
                vert_stride,
            },
            (_, false) => Rule::BidirectionalRelative {
                local_left: a,
                local_right: b,
                vert_stride,
            },
        }
    }

    /// A mask with empty rows and columns, that of all heads or of each.
    fn mask(&mut self, causal: bool) -> BlockMask {
        let heads = if self.rng.random() {
            1
        } else {
            self.pattern_heads
        };
        let shape = [heads, self.table_blocks, self.table_blocks];
        let density = self.rng.random_range(0.1..0.7);
        let kept: Vec<bool> = (0..shape.iter().product())
            .map(|_| self.rng.random_bool(density))
            .collect();
        BlockMask::new(shape, &kept, causal).unwrap()
    }
}
