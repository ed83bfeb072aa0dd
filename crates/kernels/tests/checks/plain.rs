//! The plain computation in a 2-byte type, which the engines' errors are measured against: dense and masked, scores and
//! softmax in f32, P and dS rounded to the type before each product, results rounded to the type.

use s2_attention_kernels::AttentionProblem;

use super::storage::Storage;
use super::support::{Results, Tensors, rows, widen};

/// How far f32 may be off before a number is rounded to the type: sums of a hundred products in any order.
const F32_ERROR: f32 = 1.0 / (1 << 20) as f32;

/// The plain computation, and what it is where f32 errs upwards or downwards.
///
/// A number halfway between two of the type is rounded to either by chance, and that chance alone can double a tensor's largest
/// error: all three are as right as each other.
pub fn plains(problem: &AttentionProblem, tensors: &Tensors, storage: Storage) -> [Results; 3] {
    [1.0, 1.0 + F32_ERROR, 1.0 - F32_ERROR].map(|off| rounded(problem, tensors, storage, off))
}

/// Both passes. The inputs of the call already are of the type.
pub fn plain(problem: &AttentionProblem, tensors: &Tensors, storage: Storage) -> Results {
    rounded(problem, tensors, storage, 1.0)
}

/// Both passes, with all that is rounded off by a factor.
fn rounded(problem: &AttentionProblem, tensors: &Tensors, storage: Storage, off: f32) -> Results {
    let (shape, scale) = (problem.shape(), problem.scale() as f32);
    let (d, dv) = (shape.head_dim, shape.value_dim);
    let Tensors { q, k, v, d_out, .. } = tensors;
    let keys = shape.batch * shape.num_kv_heads * shape.seq_kv;
    let mut out = vec![0.0; rows(shape) * dv];
    let mut lse = vec![f32::NEG_INFINITY; rows(shape)];
    let mut dq = vec![0.0; rows(shape) * d];
    let mut dk = vec![0.0; keys * d];
    let mut dv_sums = vec![0.0; keys * dv];
    for row in 0..rows(shape) {
        let attended = attended(problem, row);
        if attended.is_empty() {
            continue;
        }
        let query = &q[row * d..][..d];
        let d_row = &d_out[row * dv..][..dv];
        let key = |at: usize| &k[at * d..][..d];
        let value = |at: usize| &v[at * dv..][..dv];
        let scores: Vec<f32> = attended
            .iter()
            .map(|&at| dot(query, key(at)) * scale)
            .collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores.iter().map(|score| (score - max).exp()).sum();
        lse[row] = max + sum.ln();
        let p: Vec<f32> = scores
            .iter()
            .map(|score| (score - max).exp() / sum)
            .collect();
        let d_p: Vec<f32> = attended.iter().map(|&at| dot(d_row, value(at))).collect();
        let delta = dot(&p, &d_p) - tensors.d_lse.as_ref().map_or(0.0, |d_lse| d_lse[row]);
        for ((&at, p), d_p) in attended.iter().zip(p).zip(d_p) {
            let d_s = storage.round(p * (d_p - delta) * off);
            let p = storage.round(p * off);
            add(&mut out[row * dv..][..dv], p, value(at));
            add(&mut dv_sums[at * dv..][..dv], p, d_row);
            add(&mut dq[row * d..][..d], d_s, key(at));
            add(&mut dk[at * d..][..d], d_s, query);
        }
    }
    let results = |values: Vec<f32>, factor: f32| -> Vec<f64> {
        let values = values.into_iter().map(|x| storage.round(x * factor * off));
        values.map(f64::from).collect()
    };
    Results {
        out: results(out, 1.0),
        lse: widen(&lse),
        dq: results(dq, scale),
        dk: results(dk, scale),
        dv: results(dv_sums, 1.0),
    }
}

/// The rows of `k` that a row of `q` attends, by the written rule.
fn attended(problem: &AttentionProblem, row: usize) -> Vec<usize> {
    let (shape, pattern) = (problem.shape(), problem.pattern());
    let (batch, head, token) = (
        row / (shape.num_heads * shape.seq_q),
        row / shape.seq_q % shape.num_heads,
        row % shape.seq_q,
    );
    let sequence = problem.sequences().iter().find(|sequence| {
        let rows = sequence.q_row..sequence.q_row + sequence.span.q_len;
        sequence.item == batch && rows.contains(&token)
    });
    let Some(sequence) = sequence else {
        return Vec::new();
    };
    let span = sequence.span;
    let first = (batch * shape.num_kv_heads + head / pattern.group_size()) * shape.seq_kv;
    let (block, query) = (pattern.block_size(), span.q_start + token - sequence.q_row);
    let attends = |&at: &usize| {
        let key = span.kv_start + at;
        (!pattern.head(head).is_causal() || key <= query)
            && pattern.attends(head, query / block, key / block)
    };
    (0..span.kv_len)
        .filter(attends)
        .map(|at| first + sequence.kv_row + at)
        .collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(target: &mut [f32], factor: f32, source: &[f32]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target += factor * source;
    }
}
