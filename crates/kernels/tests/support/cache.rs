//! The simple model of a cache: it keeps every key and value of every sequence, and asks the oracle.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};
use s2_attention_kernels::cache::{SequenceId, Step, StepItem};
use s2_attention_kernels::{AttentionProblem, AttentionShape, reference};
use s2_attention_pattern::{Pattern, Rule};

use super::compare::{Tolerance, difference_in, tensor};
use super::random::{self, STD};
use super::widen;

/// The rows of a step, packed: `q [rows, heads, d]`, `k [rows, kv_heads, d]` and `v [rows, kv_heads, dv]`.
#[derive(Debug, Clone, Default)]
pub struct StepRows {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// What attention gives for rows: `out [rows, heads, dv]` and `lse [rows, heads]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attended {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
}

impl Attended {
    /// Holds both to `expected`.
    ///
    /// # Errors
    /// The first that misses its bar, with its worst element.
    pub fn hold(&self, expected: &Self, tolerance: Tolerance) -> Result<(), String> {
        tensor("out", &self.out, &expected.out, tolerance.out)?;
        tensor("lse", &self.lse, &expected.lse, tolerance.lse)?;
        Ok(())
    }

    /// The first whose bits differ, if any. NaNs are never equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        difference_in("out", &self.out, &other.out)
            .or_else(|| difference_in("lse", &self.lse, &other.lse))
    }

    /// The rows of an item of a step.
    pub fn of_item(&self, item: &StepItem, heads: usize, value_dim: usize) -> Self {
        let (first, len) = (item.q_row * heads, item.q_len * heads);
        Self {
            out: self.out[first * value_dim..][..len * value_dim].to_vec(),
            lse: self.lse[first..][..len].to_vec(),
        }
    }
}

/// All keys and values of a sequence: `[tokens, kv_heads, width]`.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// Every token of every sequence.
#[derive(Debug, Clone)]
pub struct Model {
    pub pattern: Pattern,
    pub head_dim: usize,
    pub value_dim: usize,
    pub scale: Option<f64>,
    pub histories: BTreeMap<SequenceId, History>,
}

impl Model {
    pub fn new(pattern: &Pattern, head_dim: usize, value_dim: usize) -> Self {
        Self {
            pattern: pattern.clone(),
            head_dim,
            value_dim,
            scale: None,
            histories: BTreeMap::new(),
        }
    }

    pub fn tokens(&self, sequence: SequenceId) -> usize {
        let width = self.pattern.num_kv_heads() * self.head_dim;
        self.histories[&sequence].k.len() / width
    }

    /// Normal rows.
    pub fn draw(&self, rows: usize, rng: &mut StdRng) -> StepRows {
        let (heads, kv_heads) = (self.pattern.num_heads(), self.pattern.num_kv_heads());
        let normal = Normal::new(0.0, STD).unwrap();
        let mut draw = |len: usize| normal.sample_iter(&mut *rng).take(len).collect();
        StepRows {
            q: draw(rows * heads * self.head_dim),
            k: draw(rows * kv_heads * self.head_dim),
            v: draw(rows * kv_heads * self.value_dim),
        }
    }

    /// Keeps the new keys and values of a step.
    pub fn append(&mut self, step: &Step, rows: &StepRows) {
        let kv_heads = self.pattern.num_kv_heads();
        let (k_row, v_row) = (kv_heads * self.head_dim, kv_heads * self.value_dim);
        for item in step.items() {
            let history = self.histories.get_mut(&item.sequence).unwrap();
            let new = item.q_row..item.q_row + item.q_len;
            history
                .k
                .extend(&rows.k[new.start * k_row..new.end * k_row]);
            history
                .v
                .extend(&rows.v[new.start * v_row..new.end * v_row]);
        }
    }

    /// What the rows of an item must give over the whole history of its sequence, which [`append`](Self::append) has made.
    pub fn expected(&self, item: &StepItem, rows: &StepRows) -> Attended {
        if item.q_len == 0 {
            return Attended::default();
        }
        let heads = self.pattern.num_heads();
        let q = &rows.q[item.q_row * heads * self.head_dim..][..item.q_len * heads * self.head_dim];
        self.attended(&self.histories[&item.sequence], q)
    }

    /// Attention of the last queries of a history, `q [queries, heads, d]`, by the oracle.
    pub fn attended(&self, history: &History, q: &[f32]) -> Attended {
        let (heads, kv_heads) = (self.pattern.num_heads(), self.pattern.num_kv_heads());
        let (d, dv) = (self.head_dim, self.value_dim);
        let seqs = [q.len() / (heads * d), history.k.len() / (kv_heads * d)];
        let shape = call_shape(&self.pattern, seqs, [d, dv]);
        let problem = AttentionProblem::new(shape, &self.pattern, self.scale, None).unwrap();
        let q = swap_axes(&widen(q), [shape.seq_q, heads, d]);
        let k = swap_axes(&widen(&history.k), [shape.seq_kv, kv_heads, d]);
        let v = swap_axes(&widen(&history.v), [shape.seq_kv, kv_heads, dv]);
        let reference::Forward { out, lse } = reference::forward(&problem, &q, &k, &v);
        Attended {
            out: swap_axes(&out, [heads, shape.seq_q, dv]),
            lse: swap_axes(&lse, [heads, shape.seq_q, 1]),
        }
    }
}

/// The ordinary call of one sequence's queries and keys.
pub fn call_shape(
    pattern: &Pattern,
    [seq_q, seq_kv]: [usize; 2],
    [head_dim, value_dim]: [usize; 2],
) -> AttentionShape {
    AttentionShape {
        batch: 1,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q,
        seq_kv,
        head_dim,
        value_dim,
    }
}

/// `[a, b, width]` as `[b, a, width]`.
pub fn swap_axes<T: Copy>(values: &[T], [a, b, width]: [usize; 3]) -> Vec<T> {
    assert_eq!(values.len(), a * b * width);
    let row = |at: usize| &values[at * width..][..width];
    let rows = (0..b).flat_map(|j| (0..a).map(move |i| i * b + j));
    rows.flat_map(row).copied().collect()
}

/// A random causal pattern over at least `blocks` blocks.
pub fn causal_pattern(rng: &mut StdRng, block: usize, blocks: usize) -> Pattern {
    let mut config = random::pattern(rng, block, blocks);
    config.rule = match config.rule {
        Rule::PerHead(rules) => Rule::PerHead(rules.into_iter().map(Rule::causal_clamp).collect()),
        rule => rule.causal_clamp(),
    };
    let pattern = config.build();
    pattern.unwrap_or_else(|error| panic!("{error}: {config:?}"))
}
