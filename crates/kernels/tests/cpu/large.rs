//! Long rows, which span many chunks, wide heads, and large logits.

use rand::SeedableRng;
use rand::rngs::StdRng;
use s2_attention_kernels::{AttentionProblem, AttentionShape};
use s2_attention_pattern::{PatternConfig, Rule};

use crate::engine::{self, Layout};
use crate::support::compare::{self, F32};
use crate::support::{Tensors, oracle, random};

const SEQ: usize = 1999;

fn call(config: PatternConfig, seq: usize, std: f32, seed: u64) -> (AttentionProblem, Tensors) {
    let shape = AttentionShape {
        batch: 1,
        num_heads: config.num_heads,
        num_kv_heads: config.num_kv_heads,
        seq_q: seq,
        seq_kv: seq,
        head_dim: 16,
        value_dim: 16,
    };
    let problem = AttentionProblem::new(shape, &config.build().unwrap(), None, None).unwrap();
    let tensors = random::tensors(&shape, std, true, &mut StdRng::seed_from_u64(seed));
    (problem, tensors)
}

fn long_rows(rule: Rule) {
    for block in [16, 64] {
        let config = PatternConfig::new(rule.clone(), block, 2).with_num_kv_heads(1);
        let (problem, tensors) = call(config, SEQ, 1.5, 11);
        let results = engine::run::<f32>(&problem, &tensors, Layout::Bshd);
        compare::results(&results, &oracle(&problem, &tensors), F32)
            .unwrap_or_else(|miss| panic!("block {block}: {miss}"));
    }
}

#[test]
fn long_causal_rows() {
    long_rows(Rule::LocalStride {
        local_blocks: 4,
        vert_stride: 3,
    });
}

#[test]
fn long_dense_rows() {
    long_rows(Rule::Dense { causal: true });
}

#[test]
fn long_bidirectional_rows() {
    long_rows(Rule::BidirectionalAbsolute {
        local_left: 3,
        local_right: 2,
        vert_stride: 4,
    });
}

#[test]
fn wide_heads() {
    for (head_dim, value_dim) in [(256, 256), (256, 8), (8, 256), (200, 136)] {
        let config = PatternConfig::local_stride(2, 3, 16, 4).with_num_kv_heads(2);
        let shape = AttentionShape {
            batch: 1,
            num_heads: 4,
            num_kv_heads: 2,
            seq_q: 150,
            seq_kv: 170,
            head_dim,
            value_dim,
        };
        let problem = AttentionProblem::new(shape, &config.build().unwrap(), None, None).unwrap();
        let tensors = random::tensors(&shape, 1.5, true, &mut StdRng::seed_from_u64(13));
        let results = engine::run::<f32>(&problem, &tensors, Layout::Bshd);
        compare::results(&results, &oracle(&problem, &tensors), F32)
            .unwrap_or_else(|miss| panic!("{head_dim}, {value_dim}: {miss}"));
    }
}

/// Scores of a standard deviation of 900, beyond any overflow of `exp` alone. The softmax is one-hot but for near ties,
/// where f32 scores, themselves off by up to 1e-3, decide: so the engine is held to dense attention in f32.
#[test]
fn large_logits_stay_right() {
    let config = PatternConfig::local_stride(2, 3, 16, 4).with_num_kv_heads(2);
    let (problem, tensors) = call(config, 300, 30.0, 12);
    let expected = oracle(&problem, &tensors);
    let results = engine::run::<f32>(&problem, &tensors, Layout::Bhsd);
    for (name, values) in results.named() {
        assert!(values.iter().all(|x| x.is_finite()), "{name} is not finite");
    }
    let (plain_out, plain_lse) = plain_f32(&problem, &tensors);
    let pairs = [
        ("out", &results.out, plain_out, &expected.out),
        ("lse", &results.lse, plain_lse, &expected.lse),
    ];
    for (name, values, plain, expected) in pairs {
        let [error, plain] = [values, &plain].map(|values| distance(values, expected));
        println!("{name}: off by {error:e}, dense attention in f32 by {plain:e}");
        assert!(
            error <= 2.0 * plain,
            "{name} is off by {error:e}, dense by {plain:e}"
        );
    }
    // In f64 no digit is missed.
    let results = engine::run::<f64>(&problem, &tensors, Layout::Bhsd);
    compare::tensor("out", &results.out, &expected.out, 1e-11).unwrap();
    compare::tensor("lse", &results.lse, &expected.lse, 1e-12).unwrap();
}

/// The Frobenius norm of the difference.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// `out` and `lse` by the textbook, in f32.
fn plain_f32(problem: &AttentionProblem, tensors: &Tensors) -> (Vec<f64>, Vec<f64>) {
    let shape = problem.shape();
    let (d, dv, seq) = (shape.head_dim, shape.value_dim, shape.seq_q);
    let block = problem.pattern().block_size();
    let group = problem.pattern().group_size();
    let (mut all_out, mut all_lse) = (Vec::new(), Vec::new());
    for head in 0..shape.num_heads {
        for i in 0..seq {
            let query = &tensors.q[(head * seq + i) * d..][..d];
            let row = |j: usize| (head / group) * seq + j;
            let keys: Vec<usize> = (0..=i)
                .filter(|j| problem.pattern().attends(head, i / block, j / block))
                .collect();
            let score = |&j: &usize| -> f32 {
                let key = &tensors.k[row(j) * d..][..d];
                let dot: f32 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                dot * problem.scale() as f32
            };
            let scores: Vec<f32> = keys.iter().map(score).collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = scores.iter().map(|score| (score - max).exp()).sum();
            let mut out = vec![0.0f32; dv];
            for (score, &j) in scores.iter().zip(&keys) {
                let p = (score - max).exp() / sum;
                let value = &tensors.v[row(j) * dv..][..dv];
                out.iter_mut().zip(value).for_each(|(out, v)| *out += p * v);
            }
            all_out.extend(out.into_iter().map(f64::from));
            all_lse.push(f64::from(max + sum.ln()));
        }
    }
    (all_out, all_lse)
}
