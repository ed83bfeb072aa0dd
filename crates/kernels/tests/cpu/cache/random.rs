//! Any split of sequences into steps gives what one call gives.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cache::{Append, StepKind};
use s2_attention_kernels::cpu::{Real, Stored};

use super::harness::{Cache, tables};
use crate::support::cache::{Attended, History, Model, StepRows, causal_pattern};
use crate::support::compare::{F32, F64, Tolerance};

const RUNS: u64 = 1000;

/// What runs have met, in items of steps.
#[derive(Debug, Default)]
struct Met {
    decoded: usize,
    prefilled: usize,
    /// Steps with both kinds.
    mixed: usize,
}

/// The new tokens of one of several sequences in a step: often one, sometimes none.
fn chunk(rng: &mut StdRng, left: usize) -> usize {
    let tokens = match rng.random_range(0..10) {
        0 => 0,
        1..=3 => 1,
        4..=6 => rng.random_range(2..=16),
        7 | 8 => rng.random_range(17..=50),
        _ => left,
    };
    tokens.min(left)
}

fn run<F: Real + Stored<F>>(seed: u64, tolerance: Tolerance, met: &mut Met) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let block = match rng.random_range(0..4) {
        0 => 1 << rng.random_range(0..8),
        1 => rng.random_range(1..=200),
        _ => rng.random_range(1..=24),
    };
    let lengths: Vec<usize> = (0..rng.random_range(1..=4))
        .map(|_| rng.random_range(1..=130))
        .collect();
    let longest = *lengths.iter().max().unwrap();
    let pattern = causal_pattern(rng, block, longest.div_ceil(block));
    let mut model = Model::new(&pattern, rng.random_range(1..=40), rng.random_range(1..=40));
    let root = (model.head_dim as f64).sqrt();
    model.scale = [None, Some(-1.0 / root), Some(0.3 / root), Some(0.0)][rng.random_range(0..4)];
    let mut cache = Cache::<F>::new(tables(&pattern, longest, rng.random_bool(0.8)), &model);
    let sequences: Vec<_> = lengths.iter().map(|_| cache.add()).collect();
    let whole: Vec<StepRows> = lengths
        .iter()
        .map(|&length| model.draw(length, rng))
        .collect();
    let mut results = vec![Attended::default(); lengths.len()];
    let mut tokens = vec![0; lengths.len()];
    while tokens != lengths {
        let mut order: Vec<usize> = (0..lengths.len())
            .filter(|_| rng.random_bool(0.8))
            .collect();
        if rng.random() {
            order.reverse();
        }
        let news: Vec<usize> = order
            .iter()
            .map(|&at| chunk(rng, lengths[at] - tokens[at]))
            .collect();
        if news.iter().sum::<usize>() == 0 {
            continue;
        }
        let mut rows = StepRows::default();
        for (&at, &new) in order.iter().zip(&news) {
            let part = |tensor: &[f32]| {
                let width = tensor.len() / lengths[at];
                tensor[tokens[at] * width..(tokens[at] + new) * width].to_vec()
            };
            rows.q.extend(part(&whole[at].q));
            rows.k.extend(part(&whole[at].k));
            rows.v.extend(part(&whole[at].v));
        }
        let appends: Vec<Append> = (order.iter().zip(&news))
            .map(|(&at, &tokens)| Append {
                sequence: sequences[at],
                tokens,
            })
            .collect();
        let (step, attended) = cache.step(&appends, &rows).unwrap();
        let heads = pattern.num_heads();
        for (item, &at) in step.items().iter().zip(&order) {
            let Attended { out, lse } = attended.of_item(item, heads, model.value_dim);
            results[at].out.extend(out);
            results[at].lse.extend(lse);
            tokens[at] += item.q_len;
        }
        let (decoded, prefilled) = (
            step.items_of(StepKind::Decode).len(),
            step.items_of(StepKind::Prefill).len(),
        );
        met.decoded += decoded;
        met.prefilled += prefilled;
        met.mixed += usize::from(decoded > 0 && prefilled > 0);
    }
    for ((rows, actual), length) in whole.iter().zip(&results).zip(&lengths) {
        let history = History {
            k: rows.k.clone(),
            v: rows.v.clone(),
        };
        let expected = model.attended(&history, &rows.q);
        (actual.hold(&expected, tolerance))
            .unwrap_or_else(|miss| panic!("seed {seed}, {length} tokens: {miss}\n{pattern:?}"));
    }
}

fn runs<F: Real + Stored<F>>(seeds: std::ops::Range<u64>, tolerance: Tolerance) {
    let mut met = Met::default();
    let count = (seeds.end - seeds.start) as usize;
    seeds.for_each(|seed| run::<F>(seed, tolerance, &mut met));
    println!("{met:?}");
    assert!(met.decoded > 5 * count && met.prefilled > count && met.mixed > count / 2);
}

#[test]
fn f32_chunks_equal_one_call() {
    runs::<f32>(0..RUNS, F32);
}

#[test]
fn f64_chunks_equal_one_call() {
    runs::<f64>(RUNS..RUNS + RUNS / 2, F64);
}
