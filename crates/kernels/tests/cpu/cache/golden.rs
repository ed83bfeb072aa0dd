//! The golden data of causal patterns: the keys before the last queries come from a cache.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cache::{Append, BlockTables, CacheError, CacheLimits, StepKind};
use s2_attention_kernels::cpu::{Real, Stored};

use super::harness::{Cache, tables};
use crate::support::cache::{History, Model, StepRows, swap_axes};
use crate::support::compare::{self, F32, STORED, Tolerance};
use crate::support::golden::{self, Golden};

/// Files of whole sequences, the last query on the last key, under a pattern that a cache takes.
fn decodable() -> Vec<Golden> {
    let files: Vec<Golden> = golden::all()
        .into_iter()
        .filter(|golden| {
            let span = golden.span;
            let whole = span.kv_start == 0 && span.q_start + span.q_len == span.kv_len;
            whole && golden.config.build().unwrap().is_causal()
        })
        .collect();
    let names: Vec<&str> = files.iter().map(|golden| golden.name.as_str()).collect();
    for name in [
        "decode_one",
        "past_unaligned",
        "gqa_per_q_head",
        "gqa_per_kv_head",
        "ragged_tail",
    ] {
        let name = format!("attention/{name}");
        assert!(names.contains(&name.as_str()), "{name} of {names:?}");
    }
    assert_eq!(names.len(), 23, "{names:?}");
    files
}

/// A file's rows, token by token: of item `item`, those of `q` from `first_query` on, and of `k` and `v` all.
fn rows(golden: &Golden, item: usize) -> StepRows {
    let shape = &golden.shape;
    let item_of = |tensor: &[f32], [heads, seq, width]: [usize; 3]| {
        let len = heads * seq * width;
        swap_axes(&tensor[item * len..][..len], [heads, seq, width])
    };
    let tensors = &golden.tensors;
    let q = [shape.num_heads, shape.seq_q, shape.head_dim];
    let k = [shape.num_kv_heads, shape.seq_kv, shape.head_dim];
    let v = [shape.num_kv_heads, shape.seq_kv, shape.value_dim];
    StepRows {
        q: item_of(&tensors.q, q),
        k: item_of(&tensors.k, k),
        v: item_of(&tensors.v, v),
    }
}

/// Feeds a file to a cache, all items of its batch in one step each time, in steps of the lengths that `next` draws, and
/// holds the output of every query that the file has. Returns how many were decoded.
fn feed<F: Real + Stored<F>>(
    golden: &Golden,
    tolerance: Tolerance,
    mut next: impl FnMut(usize) -> usize,
) -> usize {
    let (shape, past) = (&golden.shape, golden.span.q_start);
    let pattern = golden.config.build().unwrap();
    let model = Model::new(&pattern, shape.head_dim, shape.value_dim);
    let mut cache = Cache::<F>::new(tables(&pattern, shape.seq_kv, true), &model);
    let sequences: Vec<_> = (0..shape.batch).map(|_| cache.add()).collect();
    let files: Vec<StepRows> = (0..shape.batch).map(|item| rows(golden, item)).collect();
    let (heads, kv_heads) = (shape.num_heads, shape.num_kv_heads);
    let (q_row, out_row) = (heads * shape.head_dim, heads * shape.value_dim);
    let (k_row, v_row) = (kv_heads * shape.head_dim, kv_heads * shape.value_dim);
    let (mut tokens, mut decoded, mut held) = (0, 0, 0);
    while tokens < shape.seq_kv {
        let new = tokens..tokens + next(tokens).clamp(1, shape.seq_kv - tokens);
        let mut step_rows = StepRows::default();
        for file in &files {
            for token in new.clone() {
                // Of queries before the file's first one nothing is known; any will do.
                match token.checked_sub(past) {
                    Some(query) => step_rows.q.extend(&file.q[query * q_row..][..q_row]),
                    None => step_rows.q.extend(vec![0.5; q_row]),
                }
            }
            step_rows
                .k
                .extend(&file.k[new.start * k_row..new.end * k_row]);
            step_rows
                .v
                .extend(&file.v[new.start * v_row..new.end * v_row]);
        }
        let appends: Vec<Append> = sequences
            .iter()
            .map(|&sequence| Append {
                sequence,
                tokens: new.len(),
            })
            .collect();
        let (step, attended) = cache.step(&appends, &step_rows).unwrap();
        for (batch, item) in step.items().iter().enumerate() {
            for token in new.clone().filter(|token| *token >= past) {
                let (row, query) = (item.q_row + token - new.start, token - past);
                let place = format!("{}, item {batch}, token {token}", golden.name);
                for head in 0..heads {
                    let at = (batch * heads + head) * shape.seq_q + query;
                    let out =
                        &attended.out[row * out_row + head * shape.value_dim..][..shape.value_dim];
                    let expected = &golden.results.out[at * shape.value_dim..][..shape.value_dim];
                    compare::tensor("out", out, expected, tolerance.out)
                        .unwrap_or_else(|miss| panic!("{place}: {miss}"));
                    let lse = &attended.lse[row * heads + head..][..1];
                    compare::tensor("lse", lse, &golden.results.lse[at..][..1], tolerance.lse)
                        .unwrap_or_else(|miss| panic!("{place}: {miss}"));
                }
                decoded += usize::from(item.kind == StepKind::Decode);
                held += 1;
            }
        }
        tokens = new.end;
    }
    assert_eq!(held, shape.batch * shape.seq_q, "{}", golden.name);
    decoded
}

fn last_queries<F: Real + Stored<F>>(tolerance: Tolerance) {
    let mut decoded = 0;
    for golden in decodable() {
        let kv_len = golden.shape.seq_kv;
        for queries in 1..=16.min(kv_len) {
            // The prefix at once, then the last queries.
            decoded += feed::<F>(&golden, tolerance, |tokens| {
                if tokens < kv_len - queries {
                    kv_len - queries
                } else {
                    queries
                }
            });
        }
    }
    println!("{decoded} queries decoded");
    assert!(decoded > 2500);
}

#[test]
fn last_queries_in_f32() {
    last_queries::<f32>(F32);
}

#[test]
fn last_queries_in_f64() {
    last_queries::<f64>(STORED);
}

#[test]
fn token_by_token() {
    let decoded = decodable()
        .iter()
        .map(|golden| feed::<f32>(golden, F32, |_| 1))
        .sum::<usize>();
    println!("{decoded} queries decoded");
    assert!(decoded > 2000);
}

#[test]
fn chunk_by_chunk() {
    for golden in decodable() {
        for seed in 0..5 {
            let rng = &mut StdRng::seed_from_u64(seed);
            feed::<f32>(&golden, F32, |_| match rng.random_range(0..3) {
                0 => rng.random_range(1..=16),
                _ => rng.random_range(17..=90),
            });
        }
    }
}

#[test]
fn patterns_that_look_ahead_are_refused() {
    let mut refused = 0;
    for golden in golden::all() {
        let pattern = golden.config.build().unwrap();
        if pattern.is_causal() {
            continue;
        }
        let limits = CacheLimits {
            pages: None,
            max_tokens: 1,
        };
        let error = BlockTables::new(pattern, limits, true).unwrap_err();
        assert_eq!(error, CacheError::NotCausal { head: 0 }, "{}", golden.name);
        refused += 1;
    }
    assert!(refused >= 3);
}

/// What the tests above hold is not what any history would give.
#[test]
fn a_forgotten_block_shows() {
    let golden = golden::named("decode_one");
    let pattern = golden.config.build().unwrap();
    let model = Model::new(&pattern, golden.shape.head_dim, golden.shape.value_dim);
    let rows = rows(&golden, 0);
    let history = History {
        k: rows.k.clone(),
        v: rows.v.clone(),
    };
    let full = model.attended(&history, &rows.q);
    // The local block before the last one is gone.
    let block = pattern.block_size();
    let last = (golden.shape.seq_kv - 1) / block;
    let mut forgotten = history.clone();
    let width = pattern.num_kv_heads() * model.head_dim;
    forgotten.k[(last - 1) * block * width..last * block * width].fill(-40.0);
    let without = model.attended(&forgotten, &rows.q);
    assert!(compare::tensor("out", &without.out, &full.out, F32.out).is_err());
}
