//! Inputs in any strides: transposed, sliced, expanded, flipped; both orders of the axes.

use burn::tensor::{DType, Tensor, s};
use burn_s2_attention::Layout;

use super::run::{Call, arranged, contiguous};
use crate::common::host::values;
use crate::support::compare;
use crate::support::golden;

/// Holds the operation on strided inputs to the golden data: memory holds `store` of each input, and the operation gets
/// `view` of that, which is the input again.
fn holds(
    stem: &str,
    store: impl Fn(Tensor<4>) -> Tensor<4>,
    view: impl Fn(Tensor<4>) -> Tensor<4>,
) {
    let golden = golden::named(stem);
    let problem = golden.problem();
    let call = Call::new(&problem, &golden.tensors);
    let inputs = call.inputs().map(|input| view(contiguous(store(input))));
    for (input, direct) in inputs.clone().into_iter().zip(call.inputs()) {
        assert_eq!(values(input), values(direct));
    }
    let results = call.results_from(inputs, |inputs| call.attend(inputs));
    compare::results(&results, &golden.results, compare::F32)
        .unwrap_or_else(|miss| panic!("{stem}: {miss}"));
}

const STEMS: [&str; 4] = ["d_lse", "gqa_per_q_head", "value_dim", "past_unaligned"];

#[test]
fn transposed_inputs() {
    for stem in STEMS {
        // Heads and tokens swapped in memory, then width and tokens, then all.
        for axes in [[0, 2, 1, 3], [0, 1, 3, 2], [3, 2, 1, 0], [1, 0, 2, 3]] {
            // All of them are their own inverse.
            holds(stem, |x| x.permute(axes), |x| x.permute(axes));
        }
    }
}

#[test]
fn sliced_inputs() {
    for stem in STEMS {
        // Between other tokens and other elements, which would not pass unnoticed.
        let store = |x: Tensor<4>| {
            let around = |x: Tensor<4>, axis| {
                let other = x.clone() * 0.0 + 1e30;
                Tensor::cat(vec![other.clone(), x, other], axis)
            };
            around(around(x, 3), 2)
        };
        let view = |x: Tensor<4>| {
            let [_, _, seq, width] = x.dims();
            let (seq, width) = (seq / 3, width / 3);
            x.slice(s![.., .., seq..2 * seq, width..2 * width])
        };
        holds(stem, store, view);
    }
}

#[test]
fn flipped_inputs() {
    for axes in [[2, 3], [0, 1], [1, 3]] {
        holds("d_lse", |x| x.flip(axes), |x| x.flip(axes));
    }
}

#[test]
fn every_second_head_and_token() {
    let store = |x: Tensor<4>| {
        let x = Tensor::stack::<5>(vec![x.clone(), x * 0.0 + 1e30], 3).flatten::<4>(2, 3);
        Tensor::stack::<5>(vec![x.clone(), x * 0.0 + 1e30], 2).flatten::<4>(1, 2)
    };
    holds("d_lse", store, |x| x.slice(s![.., ..;2, ..;2, ..]));
}

/// One projection gives queries, keys and values side by side, `[b, s, (h + 2 h_kv) d]`.
#[test]
fn slices_of_a_fused_projection() {
    let golden = golden::named("gqa_per_kv_head");
    let s = golden.shape;
    let problem = golden.problem();
    let call = Call::new(&problem, &golden.tensors);
    let options = call.options().with_layout(Layout::Bshd);
    let results = call.results_of(|inputs| {
        let parts = inputs.map(|input| arranged(input, Layout::Bshd));
        let fused = Tensor::cat(parts.to_vec(), 2);
        let fused = fused.reshape([
            s.batch,
            s.seq_q,
            (s.num_heads + 2 * s.num_kv_heads) * s.head_dim,
        ]);
        let heads = fused.reshape([
            s.batch,
            s.seq_q,
            s.num_heads + 2 * s.num_kv_heads,
            s.head_dim,
        ]);
        let q = heads.clone().narrow(2, 0, s.num_heads);
        let k = heads.clone().narrow(2, s.num_heads, s.num_kv_heads);
        let v = heads.narrow(2, s.num_heads + s.num_kv_heads, s.num_kv_heads);
        let (out, lse) =
            burn_s2_attention::s2_attention_with_lse(q, k, v, problem.pattern(), &options);
        (arranged(out, Layout::Bshd), lse)
    });
    compare::results(&results, &golden.results, compare::F32).unwrap();
}

/// A batch of one sequence, expanded without a copy.
#[test]
fn expanded_inputs() {
    let golden = golden::named("gqa_per_q_head");
    let problem = golden.problem();
    let call = Call {
        device: crate::device(),
        ..Call::new(&problem, &golden.tensors)
    };
    let expanded = call.inputs().map(|input| {
        let [_, heads, seq, width] = input.dims();
        input.expand([3, heads, seq, width])
    });
    let own = expanded.clone().map(contiguous);
    let attend = |[q, k, v]: [Tensor<4>; 3]| {
        burn_s2_attention::s2_attention(q, k, v, problem.pattern(), &Default::default())
    };
    let [expanded, own] = [expanded, own].map(|inputs| values(attend(inputs)));
    compare::tensor("out", &expanded, &own, 1e-6).unwrap();
    let golden_out = golden.results.out.repeat(3);
    compare::tensor("out", &expanded, &golden_out, compare::F32.out).unwrap();
}

#[test]
fn both_orders_have_the_axes_they_say() {
    let golden = golden::named("value_dim");
    let problem = golden.problem();
    let call = Call::new(&problem, &golden.tensors);
    let s = golden.shape;
    let [q, k, v] = call
        .inputs()
        .map(|input| contiguous(arranged(input.inner(), Layout::Bshd)));
    let options = call.options().with_layout(Layout::Bshd);
    let (out, lse) = burn_s2_attention::s2_attention_with_lse(q, k, v, problem.pattern(), &options);
    assert_eq!(out.dims(), [s.batch, s.seq_q, s.num_heads, s.value_dim]);
    assert_eq!(lse.dims(), [s.batch, s.num_heads, s.seq_q]);
    assert_eq!(lse.dtype(), DType::F32);
}
