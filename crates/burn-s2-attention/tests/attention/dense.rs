//! Dense masked attention from Burn's own operations: the reference, and the "plain" computation of 2-byte types.

use burn::tensor::{Bool, DType, Tensor, TensorData};
use s2_attention_kernels::AttentionProblem;

use super::run::{Call, tensor};
use crate::common::host::values;
use crate::support::Results;

/// `out` and `lse` in the inputs' dtype, differentiable.
pub fn attend(problem: &AttentionProblem, [q, k, v]: [Tensor<4>; 3]) -> (Tensor<4>, Tensor<3>) {
    let group = problem.pattern().group_size();
    let weights = softmax(problem, &q, repeated(k, group));
    (
        weights.probabilities.matmul(repeated(v, group)),
        weights.lse,
    )
}

struct Softmax {
    probabilities: Tensor<4>,
    lse: Tensor<3>,
}

/// The softmax over attended keys; all 0, and an lse of `-inf`, where there are none.
fn softmax(problem: &AttentionProblem, q: &Tensor<4>, k: Tensor<4>) -> Softmax {
    let hidden = hidden(problem, q);
    let scores = q.clone().matmul(k.swap_dims(2, 3)) * problem.scale();
    let shift = scores
        .clone()
        .detach()
        .mask_fill(hidden.clone(), -1e30)
        .max_dim(3);
    let exponentials = (scores - shift.clone())
        .mask_fill(hidden.clone(), 0.0)
        .exp();
    let exponentials = exponentials.mask_fill(hidden, 0.0);
    let sum = exponentials.clone().sum_dim(3);
    let nothing = sum.clone().equal_elem(0.0);
    let sum = sum.mask_fill(nothing.clone(), 1.0);
    let lse = (shift + sum.clone().log()).mask_fill(nothing, f64::NEG_INFINITY);
    Softmax {
        probabilities: exponentials / sum,
        lse: lse.squeeze_dim(3),
    }
}

/// True where a query does not attend a key, `[b, h, s_q, s_kv]`, by the written rule.
fn hidden(problem: &AttentionProblem, q: &Tensor<4>) -> Tensor<4, Bool> {
    let (shape, pattern) = (problem.shape(), problem.pattern());
    let block = pattern.block_size();
    let mut hidden = Vec::new();
    // One sequence an item.
    for sequence in problem.sequences() {
        let span = sequence.span;
        for head in 0..shape.num_heads {
            let causal = pattern.head(head).is_causal();
            for query in 0..shape.seq_q {
                for key in 0..shape.seq_kv {
                    let (i, j) = (span.q_start + query, span.kv_start + key);
                    let attended = query < span.q_len
                        && key < span.kv_len
                        && (!causal || j <= i)
                        && pattern.attends(head, i / block, j / block);
                    hidden.push(!attended);
                }
            }
        }
    }
    let axes = [shape.batch, shape.num_heads, shape.seq_q, shape.seq_kv];
    Tensor::from_data(TensorData::new(hidden, axes), &q.device())
}

/// Each key/value head, once for every query head that reads it.
fn repeated(heads: Tensor<4>, group: usize) -> Tensor<4> {
    let [batch, kv_heads, seq, width] = heads.dims();
    let heads = heads.unsqueeze_dim::<5>(2).repeat_dim(2, group);
    heads.reshape([batch, kv_heads * group, seq, width])
}

/// The inverse: sums over the query heads of each key/value head.
fn summed(heads: Tensor<4>, group: usize) -> Tensor<4> {
    let [batch, num_heads, seq, width] = heads.dims();
    let groups = heads.reshape([batch, num_heads / group, group, seq, width]);
    groups.sum_dim(2).squeeze_dim(2)
}

/// The plain computation in a 2-byte type: scores and softmax in f32, P and dS rounded to the type before each product,
/// results rounded to the type. The inputs of `call` already are of the type.
pub fn plain(call: &Call<'_>) -> Results {
    let (problem, dtype) = (call.problem, call.dtype);
    let group = problem.pattern().group_size();
    let round = |tensor: Tensor<4>| tensor.cast(dtype).cast(DType::F32);
    let [q, k, v] = call.inputs().map(|input| input.cast(DType::F32));
    let [k, v] = [k, v].map(|heads| repeated(heads, group));
    let softmax = softmax(problem, &q, k.clone());
    let p = softmax.probabilities;
    let rounded = round(p.clone());
    let out = round(rounded.clone().matmul(v.clone()));

    let d_out = tensor(&call.tensors.d_out, out.dims(), DType::F32, &call.device);
    let d_p = d_out.clone().matmul(v.swap_dims(2, 3));
    let mut delta = (p.clone() * d_p.clone()).sum_dim(3);
    if let Some(d_lse) = &call.tensors.d_lse {
        delta =
            delta - tensor(d_lse, softmax.lse.dims(), DType::F32, &call.device).unsqueeze_dim(3);
    }
    let d_s = round(p * (d_p - delta));
    let scale = problem.scale();
    let d_q = d_s.clone().matmul(k) * scale;
    let d_k = summed(d_s.swap_dims(2, 3).matmul(q) * scale, group);
    let d_v = summed(rounded.swap_dims(2, 3).matmul(d_out), group);
    Results {
        out: values(out),
        lse: values(softmax.lse),
        dq: values(round(d_q)),
        dk: values(round(d_k)),
        dv: values(round(d_v)),
    }
}
