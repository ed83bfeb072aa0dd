//! The operation on a cache: what one call on the whole sequence gives, however its tokens come.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::cache::{Append, CacheLayer, KvCache, KvCacheConfig, SequenceId};
use burn_s2_attention::{Layout, PatternConfig, S2AttentionOptions, s2_attention};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::common::host::values;
use crate::common::layers::layer;
use crate::common::tensors::{assert_close, distance, largest, normal};

/// Queries, keys and values of one sequence, `[1, tokens, heads, width]`.
pub struct Tokens {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
}

impl Tokens {
    pub fn new(layer: &CacheLayer, tokens: usize, seed: u64) -> Self {
        let (heads, kv_heads) = (layer.pattern.num_heads(), layer.pattern.num_kv_heads());
        let rows = |heads, width, seed| normal([1, tokens, heads, width], seed, &crate::device());
        Self {
            // Far from the even softmax that hides a wrong block.
            q: rows(heads, layer.head_dim, 3 * seed) * 2.0,
            k: rows(kv_heads, layer.head_dim, 3 * seed + 1) * 1.5,
            v: rows(kv_heads, layer.value_dim, 3 * seed + 2),
        }
    }

    fn len(&self) -> usize {
        self.q.dims()[1]
    }

    pub fn map(&self, of: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        Self {
            q: of(self.q.clone()),
            k: of(self.k.clone()),
            v: of(self.v.clone()),
        }
    }

    pub fn part(&self, start: usize, len: usize) -> Self {
        self.map(|rows| rows.narrow(1, start, len))
    }

    fn cat(parts: Vec<Self>) -> Self {
        let cat = |of: fn(&Self) -> &Tensor<4>| {
            Tensor::cat(parts.iter().map(|part| of(part).clone()).collect(), 1)
        };
        Self {
            q: cat(|part| &part.q),
            k: cat(|part| &part.k),
            v: cat(|part| &part.v),
        }
    }

    /// All at once, without a cache.
    pub fn at_once(&self, layer: &CacheLayer) -> Tensor<4> {
        let mut options = S2AttentionOptions::default().with_layout(Layout::Bshd);
        options.scale = layer.scale;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(Clone::clone);
        s2_attention(q, k, v, &layer.pattern, &options)
    }
}

/// Patterns that leave something out and one that does not, with and without a scale.
pub fn layers() -> Vec<CacheLayer> {
    let local_stride = PatternConfig::local_stride;
    let layer = |pattern| layer(pattern, [16, 24]);
    let scaled = CacheLayer {
        scale: Some(0.5),
        ..layer(local_stride(2, 3, 8, 4))
    };
    vec![
        layer(local_stride(1, 3, 8, 4).with_num_kv_heads(2)),
        layer(
            local_stride(2, 4, 16, 8)
                .with_num_kv_heads(1)
                .with_head_offset(1),
        ),
        layer(PatternConfig::dense(8, 2)),
        layer(PatternConfig::sliding_window(2, 8, 4).with_num_kv_heads(2)),
        scaled,
    ]
}

/// One step of a cache with one layer: the output of each part, in order.
pub fn step(cache: &mut KvCache, parts: Vec<(SequenceId, Tokens)>) -> Vec<Tensor<4>> {
    let appends: Vec<Append> = (parts.iter())
        .map(|(sequence, tokens)| Append {
            sequence: *sequence,
            tokens: tokens.len(),
        })
        .collect();
    let begun = cache.begin(&appends);
    let Tokens { q, k, v } = Tokens::cat(parts.into_iter().map(|(_, tokens)| tokens).collect());
    let out = cache.attend(0, q, k, v);
    cache.commit();
    assert_eq!(begun.items().len(), appends.len());
    let items = begun.items().iter();
    items
        .map(|item| out.clone().narrow(1, item.q_row, item.q_len))
        .collect()
}

pub fn new(layer: &CacheLayer, dtype: DType, config: &KvCacheConfig) -> KvCache {
    KvCache::new(vec![layer.clone()], dtype, &crate::device(), config)
}

/// Several sequences, each with a random number of new tokens in each step: prompts, parts of prompts, single tokens and none.
#[test]
fn any_chunking_of_any_batch_is_the_one_shot_result() {
    let mut random = StdRng::seed_from_u64(1);
    for (index, layer) in layers().iter().enumerate() {
        let cases = if crate::every_case() { 4 } else { 2 };
        for case in 0..cases {
            let config = KvCacheConfig::new(300).with_evict(case % 2 == 0);
            let distance = batch_distance(layer, &config, &mut random);
            assert!(distance < 2e-5, "layer {index}, case {case}: {distance:e}");
        }
    }
}

/// How far what random steps of a random batch give is from the one-shot results.
pub fn batch_distance(layer: &CacheLayer, config: &KvCacheConfig, random: &mut StdRng) -> f64 {
    let mut cache = new(layer, DType::F32, config);
    let count = random.random_range(1..4);
    let sequences: Vec<(SequenceId, Tokens)> = (0..count)
        .map(|_| {
            let tokens = random.random_range(1..config.max_tokens);
            (
                cache.add(),
                Tokens::new(layer, tokens, random.random_range(0..1 << 40)),
            )
        })
        .collect();
    let mut outs: Vec<Vec<Tensor<4>>> = sequences.iter().map(|_| vec![]).collect();
    let mut done = vec![0; sequences.len()];
    while (0..sequences.len()).any(|of| done[of] < sequences[of].1.len()) {
        let (mut parts, mut owners) = (vec![], vec![]);
        for (of, (id, tokens)) in sequences.iter().enumerate() {
            let left = tokens.len() - done[of];
            let longest = [1, 4, 16, 17, 60, 300][random.random_range(0..6)];
            let len = random.random_range(0..=left.min(longest));
            if len > 0 {
                parts.push((*id, tokens.part(done[of], len)));
                owners.push(of);
                done[of] += len;
            }
        }
        if !parts.is_empty() {
            for (of, out) in owners.into_iter().zip(step(&mut cache, parts)) {
                outs[of].push(out);
            }
        }
    }
    let distances = sequences.iter().zip(outs);
    largest(
        distances.map(|((_, tokens), outs)| distance(Tensor::cat(outs, 1), tokens.at_once(layer))),
    )
}

/// The tokens of a step do not reach other sequences of it, and a cache that keeps everything gives the same bits.
#[test]
fn eviction_changes_no_bit() {
    let mut differ = 0;
    for layer in &layers() {
        let tokens = Tokens::new(layer, 250, 5);
        let run = |evict: bool| {
            let mut cache = new(
                layer,
                DType::F32,
                &KvCacheConfig::new(250).with_evict(evict),
            );
            let sequence = cache.add();
            let mut outs = vec![];
            let mut start = 0;
            let lens: &[usize] = if crate::every_case() {
                &[1; 120]
            } else {
                &[&[1; 20][..], &[20; 5]].concat()
            };
            for len in [70, 1, 40, 16, 3].into_iter().chain(lens.iter().copied()) {
                outs.push(step(&mut cache, vec![(sequence, tokens.part(start, len))]).remove(0));
                start += len;
            }
            (values(Tensor::cat(outs, 1)), cache)
        };
        let ((evicted, less), (kept, more)) = (run(true), run(false));
        assert_eq!(evicted, kept);
        assert_eq!(less.memory_bytes(), less.predicted_bytes(250));
        assert_eq!(more.memory_bytes(), less.full_bytes(250));
        differ += usize::from(less.memory_bytes() < more.memory_bytes());
    }
    assert_eq!(differ, 3, "patterns that leave something out");
}

/// Two sequences that begin alike: one prompt is read, pages are shared, and neither sees what the other appends.
#[test]
fn forks_share_a_prefix_and_part() {
    for layer in &layers() {
        for prefix in [64, 61, 3] {
            let (first, second) = (Tokens::new(layer, 160, 7), Tokens::new(layer, 160, 8));
            let second = Tokens::cat(vec![
                first.part(0, prefix),
                second.part(prefix, 160 - prefix),
            ]);
            let mut cache = new(layer, DType::F32, &KvCacheConfig::new(160));
            let a = cache.add();
            step(&mut cache, vec![(a, first.part(0, prefix))]);
            let of_one = cache.memory_bytes();
            let b = cache.fork(a);
            // The table of another sequence, and no page.
            let table = cache.memory_bytes() - of_one;
            assert!(table < 8 * 1024 && table > 0, "{table}");
            let mut outs = [vec![], vec![]];
            let mut start = prefix;
            while start < 160 {
                let len = [1, 20, 5][start % 3].min(160 - start);
                let parts = vec![(a, first.part(start, len)), (b, second.part(start, len))];
                for (outs, out) in outs.iter_mut().zip(step(&mut cache, parts)) {
                    outs.push(out);
                }
                start += len;
            }
            for (outs, tokens) in outs.into_iter().zip([first, second]) {
                let expected = tokens.at_once(layer).narrow(1, prefix, 160 - prefix);
                assert_close(Tensor::cat(outs, 1), expected, 2e-5);
            }
        }
    }
}

/// Removed, reset and added sequences take the pages of others before them, and nothing of what was in those.
#[test]
fn pages_of_other_sequences_leave_nothing_behind() {
    let layer = &layers()[0];
    let mut cache = new(layer, DType::F32, &KvCacheConfig::new(200));
    let poison = |tokens: &Tokens| Tokens {
        q: tokens.q.clone(),
        k: tokens.k.clone() * f64::NAN,
        v: tokens.v.clone() * f64::NAN,
    };
    let old = cache.add();
    let tokens = Tokens::new(layer, 200, 9);
    step(&mut cache, vec![(old, poison(&tokens))]);
    let kept = cache.add();
    step(&mut cache, vec![(kept, tokens.part(0, 100))]);
    cache.reset(old);
    assert_eq!(cache.tokens(old).unwrap(), 0);
    let mut out = step(
        &mut cache,
        vec![(old, tokens.part(0, 90)), (kept, tokens.part(100, 20))],
    );
    let expected = tokens.at_once(layer);
    assert_close(out.remove(1), expected.clone().narrow(1, 100, 20), 2e-5);
    assert_close(out.remove(0), expected.clone().narrow(1, 0, 90), 2e-5);
    cache.remove(old);
    let new = cache.add();
    let parts = vec![(new, tokens.part(0, 7)), (kept, tokens.part(120, 1))];
    let mut out = step(&mut cache, parts);
    assert_close(out.remove(1), expected.clone().narrow(1, 120, 1), 2e-5);
    assert_close(out.remove(0), expected.narrow(1, 0, 7), 2e-5);
}

/// Rows behind those of the step are nobody's: they change nothing.
#[test]
fn rows_of_no_sequence_change_nothing() {
    let layer = &layers()[0];
    let tokens = Tokens::new(layer, 120, 11);
    let mut cache = new(layer, DType::F32, &KvCacheConfig::new(120));
    let sequence = cache.add();
    let mut start = 0;
    let expected = tokens.at_once(layer);
    for len in [40, 3, 20, 1, 1] {
        cache.begin(&[Append {
            sequence,
            tokens: len,
        }]);
        let Tokens { q, k, v } = tokens.part(start, len + 5);
        let out = cache.attend(0, q, k, v);
        cache.commit();
        assert_eq!(out.dims()[1], len + 5);
        assert_close(
            out.narrow(1, 0, len),
            expected.clone().narrow(1, start, len),
            2e-5,
        );
        start += len;
    }
}

/// A sequence that has ended keeps its place in the table without a token, so that a batch needs no other buffers: the rows of
/// the others follow each other, and rows at the end are nobody's.
#[test]
fn ended_sequences_keep_their_place() {
    let layer = &layers()[0];
    let texts = [14, 15, 16].map(|seed| Tokens::new(layer, 80, seed));
    let expected = texts.each_ref().map(|text| text.at_once(layer));
    let config = KvCacheConfig::new(80).with_reserve(Some(3));
    let mut cache = new(layer, DType::F32, &config);
    let ids = [(); 3].map(|()| cache.add());
    let prompts = ids.into_iter().zip(&texts);
    step(
        &mut cache,
        prompts.map(|(id, text)| (id, text.part(0, 50))).collect(),
    );
    for position in 50..80 {
        let ended = |text: usize| position >= [80, 60, 70][text];
        let appends = [0, 1, 2].map(|text| Append {
            sequence: ids[text],
            tokens: usize::from(!ended(text)),
        });
        let begun = cache.begin(&appends);
        let live: Vec<usize> = (0..3).filter(|text| !ended(*text)).collect();
        let rows = (0..3).map(|row| texts[*live.get(row).unwrap_or(&0)].part(position, 1));
        let Tokens { q, k, v } = Tokens::cat(rows.collect());
        let out = cache.attend(0, q, k, v);
        cache.commit();
        assert_eq!((out.dims()[1], begun.rows()), (3, live.len()));
        for (row, text) in live.into_iter().enumerate() {
            let expected = expected[text].clone().narrow(1, position, 1);
            assert_close(out.clone().narrow(1, row, 1), expected, 2e-5);
        }
    }
    let tokens = ids.map(|id| cache.tokens(id).unwrap());
    assert_eq!(tokens, [80, 60, 70]);
}

/// Steps in which nothing is appended, the first one too: no layer need attend, and rows that a layer is given all the same are
/// nobody's.
#[test]
fn a_step_of_no_tokens_changes_nothing() {
    let layer = &layers()[0];
    let tokens = Tokens::new(layer, 60, 17);
    let mut cache = new(layer, DType::F32, &KvCacheConfig::new(60));
    let sequences = [cache.add(), cache.add()];
    let nothing = sequences.map(|sequence| Append {
        sequence,
        tokens: 0,
    });
    for (start, len) in [(0, 40), (40, 3), (43, 17)] {
        assert_eq!(cache.begin(&nothing).rows(), 0);
        cache.commit();
        cache.begin(&nothing);
        let Tokens { q, k, v } = tokens.part(0, 2);
        assert_eq!(cache.attend(0, q, k, v).dims()[1], 2);
        cache.commit();
        let part = vec![(sequences[0], tokens.part(start, len))];
        let out = step(&mut cache, part).remove(0);
        assert_close(out, tokens.at_once(layer).narrow(1, start, len), 2e-5);
    }
}

/// A sequence that is removed or made empty within a step is gone: the others are computed as ever, also in steps that take its
/// pages.
#[test]
fn sequences_can_leave_within_a_step() {
    let layer = &layers()[0];
    let texts = [18, 19, 20].map(|seed| Tokens::new(layer, 80, seed));
    let mut cache = new(layer, DType::F32, &KvCacheConfig::new(80));
    let [stays, removed, emptied] = [(); 3].map(|()| cache.add());
    let append = |sequence, tokens| Append { sequence, tokens };
    cache.begin(&[append(removed, 30), append(stays, 5), append(emptied, 16)]);
    cache.remove(removed);
    cache.reset(emptied);
    let parts = [
        texts[1].part(0, 30),
        texts[0].part(0, 5),
        texts[2].part(0, 16),
    ];
    let Tokens { q, k, v } = Tokens::cat(parts.into());
    let mut outs = vec![cache.attend(0, q, k, v).narrow(1, 30, 5)];
    cache.commit();
    assert_eq!((cache.tokens(emptied), cache.num_sequences()), (Ok(0), 2));
    let mut others = vec![];
    for (start, len) in [(5, 40), (45, 1), (46, 34)] {
        let parts = vec![
            (emptied, texts[2].part(start - 5, len)),
            (stays, texts[0].part(start, len)),
        ];
        let mut out = step(&mut cache, parts);
        outs.extend(out.pop());
        others.extend(out.pop());
    }
    assert_close(Tensor::cat(outs, 1), texts[0].at_once(layer), 2e-5);
    let expected = texts[2].at_once(layer).narrow(1, 0, 75);
    assert_close(Tensor::cat(others, 1), expected, 2e-5);
}

/// An abandoned step leaves nothing of itself, and forks of its sequences as they were.
#[test]
fn an_abandoned_step_leaves_no_trace() {
    let layer = &layers()[0];
    let tokens = Tokens::new(layer, 70, 21);
    let expected = tokens.at_once(layer);
    let mut cache = new(layer, DType::F32, &KvCacheConfig::new(70));
    let first = cache.add();
    step(&mut cache, vec![(first, tokens.part(0, 29))]);
    let second = cache.fork(first);
    cache.begin(&[Append {
        sequence: first,
        tokens: 20,
    }]);
    cache.abandon();
    let parts = vec![(first, tokens.part(0, 70)), (second, tokens.part(29, 41))];
    let mut out = step(&mut cache, parts);
    assert_close(out.remove(1), expected.clone().narrow(1, 29, 41), 2e-5);
    assert_close(out.remove(0), expected, 2e-5);
}

/// A step that is carried out again gives the same, as a captured step that is replayed does.
#[test]
fn a_step_can_be_repeated() {
    let layer = &layers()[1];
    let tokens = Tokens::new(layer, 60, 12);
    let mut cache = new(
        layer,
        DType::F32,
        &KvCacheConfig::new(60).with_reserve(Some(1)),
    );
    let reserved = cache.reserved_bytes();
    let sequence = cache.add();
    step(&mut cache, vec![(sequence, tokens.part(0, 50))]);
    for position in 50..60 {
        cache.begin(&[Append {
            sequence,
            tokens: 1,
        }]);
        let twice = [(); 2].map(|()| {
            let Tokens { q, k, v } = tokens.part(position, 1);
            values(cache.attend(0, q, k, v))
        });
        cache.commit();
        assert_eq!(twice[0], twice[1]);
    }
    // All that it needs is there from the start.
    assert_eq!(cache.reserved_bytes(), reserved);
}

/// What a cache holds is a constant to Burn's graph.
#[test]
fn autodiff_computes_the_same_without_gradients() {
    let layer = &layers()[0];
    let tokens = Tokens::new(layer, 40, 13);
    let mut cache = new(layer, DType::F32, &KvCacheConfig::new(40));
    let sequence = cache.add();
    let expected = tokens.at_once(layer);
    for (start, len) in [(0, 30), (30, 10)] {
        cache.begin(&[Append {
            sequence,
            tokens: len,
        }]);
        let Tokens { q, k, v } = tokens.part(start, len);
        let [q, k, v] = [q, k, v].map(|x| Tensor::from_inner(x).require_grad());
        let out = cache.attend(0, q.clone(), k, v);
        cache.commit();
        assert!(out.device().is_autodiff());
        assert_close(
            out.clone().inner(),
            expected.clone().narrow(1, start, len),
            2e-5,
        );
        // Of `out` and `q`, summed, `q` has the gradient of itself alone.
        let gradients = (out.sum() + q.clone().sum()).backward();
        let gradient = q.grad(&gradients).unwrap();
        assert!(values(gradient).iter().all(|gradient| *gradient == 1.0));
    }
}
