//! The host oracle: S2 attention in f64, forward and backward, by the definition.
//!
//! It asks [`Pattern::attends`](s2_attention_pattern::Pattern::attends) (the written rule) about every pair of
//! tokens and shares no code with the closed forms that engines use. It takes O(seq_q * seq_kv) time and is meant
//! for tests: every engine is held against it.
//!
//! All tensors are contiguous: `q [b, h, s_q, d]`, `k [b, h_kv, s_kv, d]`, `v [b, h_kv, s_kv, dv]`. Of packed documents
//! `b` is 1, and `s_q` and `s_kv` are the tokens of all of them.

use crate::AttentionProblem;

/// What the forward pass computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[b, h, s_q, dv]`; 0 where a query attends nothing.
    pub out: Vec<f64>,
    /// `[b, h, s_q]`, natural logarithm; `-inf` where a query attends nothing.
    pub lse: Vec<f64>,
}

/// What the backward pass computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// `[b, h, s_q, d]`.
    pub dq: Vec<f64>,
    /// `[b, h_kv, s_kv, d]`, summed over the query heads of a key/value head.
    pub dk: Vec<f64>,
    /// `[b, h_kv, s_kv, dv]`, summed over the query heads of a key/value head.
    pub dv: Vec<f64>,
}

/// `out = softmax(scale * q k^T) v` and `lse = log sum exp(scale * q k^T)` over the attended pairs.
///
/// # Panics
/// If a slice is shorter than its shape.
pub fn forward(problem: &AttentionProblem, q: &[f64], k: &[f64], v: &[f64]) -> Forward {
    let shape = problem.shape();
    let (d, dv) = (shape.head_dim, shape.value_dim);
    let rows = shape.batch * shape.num_heads * shape.seq_q;
    let mut result = Forward {
        out: vec![0.0; rows * dv],
        lse: vec![f64::NEG_INFINITY; rows],
    };
    for_each_query(problem, |row| {
        let query = &q[row.query * d..][..d];
        let scores: Vec<f64> = row
            .keys
            .iter()
            .map(|&key| problem.scale() * dot(query, &k[key * d..][..d]))
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let lse = max + sum.ln();
        result.lse[row.query] = lse;
        let out = &mut result.out[row.query * dv..][..dv];
        for (&key, score) in row.keys.iter().zip(&scores) {
            add_scaled(out, (score - lse).exp(), &v[key * dv..][..dv]);
        }
    });
    result
}

/// Gradients of `sum(out * d_out) + sum(lse * d_lse)`.
///
/// With `P = exp(S - lse)`: `dV = P^T dO`, `dS = P * (dO V^T - D)` with `D = rowsum(dO * O) - d_lse`,
/// `dQ = scale * dS K`, `dK = scale * dS^T Q`.
///
/// # Panics
/// If a slice is shorter than its shape.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    problem: &AttentionProblem,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    d_out: &[f64],
    d_lse: &[f64],
) -> Gradients {
    let shape = problem.shape();
    let (d, dv) = (shape.head_dim, shape.value_dim);
    let keys = shape.batch * shape.num_kv_heads * shape.seq_kv;
    let Forward { out, lse } = forward(problem, q, k, v);
    let mut grads = Gradients {
        dq: vec![0.0; q.len()],
        dk: vec![0.0; keys * d],
        dv: vec![0.0; keys * dv],
    };
    for_each_query(problem, |row| {
        let query = &q[row.query * d..][..d];
        let d_out = &d_out[row.query * dv..][..dv];
        let delta = dot(d_out, &out[row.query * dv..][..dv]) - d_lse[row.query];
        for &key in &row.keys {
            let (key_row, value_row) = (&k[key * d..][..d], &v[key * dv..][..dv]);
            let p = (problem.scale() * dot(query, key_row) - lse[row.query]).exp();
            let ds = problem.scale() * p * (dot(d_out, value_row) - delta);
            add_scaled(&mut grads.dv[key * dv..][..dv], p, d_out);
            add_scaled(&mut grads.dq[row.query * d..][..d], ds, key_row);
            add_scaled(&mut grads.dk[key * d..][..d], ds, query);
        }
    });
    grads
}

/// A query that attends something: its row of `q` and the rows of `k` that it attends.
struct Row {
    query: usize,
    keys: Vec<usize>,
}

fn for_each_query(problem: &AttentionProblem, mut visit: impl FnMut(Row)) {
    let shape = problem.shape();
    let pattern = problem.pattern();
    let block = pattern.block_size();
    for sequence in problem.sequences() {
        let span = &sequence.span;
        for head in 0..shape.num_heads {
            let kv_head = head / (shape.num_heads / shape.num_kv_heads);
            let causal = pattern.head(head).is_causal();
            for query in 0..span.q_len {
                let position = span.q_start + query;
                let keys: Vec<usize> = (0..span.kv_len)
                    .filter(|key| {
                        let key = span.kv_start + key;
                        (!causal || key <= position)
                            && pattern.attends(head, position / block, key / block)
                    })
                    .map(|key| {
                        let head = sequence.item * shape.num_kv_heads + kv_head;
                        head * shape.seq_kv + sequence.kv_row + key
                    })
                    .collect();
                if !keys.is_empty() {
                    let head = sequence.item * shape.num_heads + head;
                    let query = head * shape.seq_q + sequence.q_row + query;
                    visit(Row { query, keys });
                }
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(target: &mut [f64], factor: f64, source: &[f64]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target += factor * source;
    }
}
