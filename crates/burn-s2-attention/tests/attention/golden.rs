//! The golden data on Burn tensors, forward and backward.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::{Layout, S2AttentionOptions, s2_attention, s2_attention_with_lse};

use super::run::{Call, arranged, contiguous, tensor};
use crate::common::host::values;
use crate::support::compare::{self, F32};
use crate::support::golden;

#[test]
fn f32_holds_the_golden_data() {
    for golden in golden::all() {
        let problem = golden.problem();
        let results = Call::new(&problem, &golden.tensors).results();
        compare::results(&results, &golden.results, F32)
            .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
    }
}

#[test]
fn f32_holds_the_golden_data_with_tokens_before_heads() {
    for golden in golden::all() {
        let problem = golden.problem();
        let call = Call::new(&problem, &golden.tensors);
        let options = call.options().with_layout(Layout::Bshd);
        let pattern = problem.pattern();
        let attend = |inputs: [Tensor<4>; 3]| {
            let [q, k, v] = inputs.map(|input| arranged(input, Layout::Bshd));
            let (out, lse) = s2_attention_with_lse(q, k, v, pattern, &options);
            (arranged(out, Layout::Bshd), lse)
        };
        // `[b, h, s, d]` in memory and `[b, s, h, d]` in memory.
        let heads_first = call.inputs();
        let tokens_first = call.inputs().map(|input| {
            let tokens_first = contiguous(arranged(input, Layout::Bshd));
            arranged(tokens_first, Layout::Bshd)
        });
        for inputs in [heads_first, tokens_first] {
            compare::results(&call.results_from(inputs, attend), &golden.results, F32)
                .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
        }
    }
}

/// Without options keys start at position 0 and the last query stands on the last key; without autodiff there is no
/// graph.
#[test]
fn default_options_place_queries_at_the_end() {
    let mut seen = 0;
    for golden in golden::all() {
        let (shape, span) = (golden.shape, golden.span);
        if span.kv_start != 0 || span.q_start + shape.seq_q != shape.seq_kv {
            continue;
        }
        seen += 1;
        let problem = golden.problem();
        let call = Call {
            device: crate::device(),
            ..Call::new(&problem, &golden.tensors)
        };
        let [q, k, v] = call.inputs();
        let out = s2_attention(q, k, v, problem.pattern(), &S2AttentionOptions::default());
        assert_eq!(out.dims(), shape.out_sizes());
        assert_eq!(out.dtype(), DType::F32);
        compare::tensor("out", &values(out), &golden.results.out, F32.out)
            .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
    }
    assert_eq!(seen, 27);
}

#[test]
fn two_runs_give_the_same_bits() {
    for golden in golden::all() {
        let problem = golden.problem();
        for &dtype in crate::DTYPES {
            let run = || {
                Call {
                    dtype,
                    ..Call::new(&problem, &golden.tensors)
                }
                .results()
            };
            assert_eq!(compare::difference(&run(), &run()), None, "{}", golden.name);
        }
    }
}

/// The same tensors serve several calls, and one tensor may be queries, keys and values at once.
#[test]
fn tensors_are_used_again() {
    let golden = golden::named("mha_basic");
    let problem = golden.problem();
    let call = Call::new(&problem, &golden.tensors);
    let inputs = call.inputs();
    let (first, _) = call.attend(inputs.clone());
    let (second, _) = call.attend(inputs.clone());
    assert_eq!(
        compare::difference_in("out", &values(first), &values(second)),
        None
    );
    for (input, values_before) in
        inputs
            .into_iter()
            .zip([&golden.tensors.q, &golden.tensors.k, &golden.tensors.v])
    {
        assert_eq!(values(input), crate::support::widen(values_before));
    }

    let axes = golden.shape.q_sizes();
    let one = || tensor(&golden.tensors.q, axes, DType::F32, &call.device).require_grad();
    let separate = [one(), one(), one()];
    let (out, lse) = call.attend(separate.clone());
    let gradients = call.loss(out, lse).backward();
    let sum = separate
        .map(|leaf| leaf.grad(&gradients).unwrap())
        .into_iter()
        .reduce(|a, b| a + b);
    let shared = one();
    let (out, lse) = call.attend([shared.clone(), shared.clone(), shared.clone()]);
    let gradients = call.loss(out, lse).backward();
    let gradient = values(shared.grad(&gradients).unwrap());
    compare::tensor("gradient", &gradient, &values(sum.unwrap()), 1e-5).unwrap();
}
