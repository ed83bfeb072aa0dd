//! Which gradients flow: from out, lse, both or neither, to any of q, k and v.

use burn::tensor::{DType, Device, Tensor};
use burn_s2_attention::s2_attention;
use s2_attention_kernels::AttentionProblem;

use super::run::{Call, tensor};
use crate::common::host::values;
use crate::support::compare::{self, F32};
use crate::support::golden::{self, Golden};
use crate::support::{Results, Tensors, oracle};

/// The files whose gradients depend on lse too.
fn golden_with_d_lse() -> Vec<(Golden, AttentionProblem)> {
    let all = golden::all().into_iter();
    let with = all.filter(|golden| golden.tensors.d_lse.is_some());
    with.map(|golden| (golden.clone(), golden.problem()))
        .collect()
}

fn held(name: &str, results: &Results, expected: &Results) {
    compare::results(results, expected, F32).unwrap_or_else(|miss| panic!("{name}: {miss}"));
}

#[test]
fn of_out_alone() {
    for (golden, problem) in golden_with_d_lse() {
        let tensors = Tensors {
            d_lse: None,
            ..golden.tensors
        };
        let expected = oracle(&problem, &tensors);
        held(
            &golden.name,
            &Call::new(&problem, &tensors).results(),
            &expected,
        );

        // The form that returns no lse.
        let call = Call::new(&problem, &tensors);
        let leaves = call.inputs().map(Tensor::require_grad);
        let [q, k, v] = leaves.clone();
        let out = s2_attention(q, k, v, problem.pattern(), &call.options());
        let d_out = tensor(&tensors.d_out, out.dims(), DType::F32, &call.device);
        let gradients = (out * d_out).sum().backward();
        let [dq, dk, dv] = leaves.map(|leaf| values(leaf.grad(&gradients).unwrap()));
        for (gradient, expected) in [(dq, expected.dq), (dk, expected.dk), (dv, expected.dv)] {
            compare::tensor("gradient", &gradient, &expected, F32.gradients).unwrap();
        }
    }
}

#[test]
fn of_lse_alone() {
    for (golden, problem) in golden_with_d_lse() {
        let zeros = vec![0.0; golden.tensors.d_out.len()];
        let tensors = Tensors {
            d_out: zeros,
            ..golden.tensors
        };
        let expected = oracle(&problem, &tensors);
        let call = Call::new(&problem, &tensors);
        let leaves = call.inputs().map(Tensor::require_grad);
        // `out` is dropped before the backward pass.
        let (_, lse) = call.attend(leaves.clone());
        let d_lse = tensors.d_lse.as_ref().unwrap();
        let d_lse = tensor(d_lse, lse.dims(), DType::F32, &call.device);
        let gradients = (lse * d_lse).sum().backward();
        let [dq, dk, dv] = leaves.map(|leaf| values(leaf.grad(&gradients).unwrap()));
        for (gradient, expected) in [(dq, expected.dq), (dk, expected.dk), (dv, expected.dv)] {
            compare::tensor(&golden.name, &gradient, &expected, F32.gradients).unwrap();
        }
    }
}

#[test]
fn of_neither() {
    let golden = golden::named("d_lse");
    let problem = golden.problem();
    let call = Call::new(&problem, &golden.tensors);
    let [q, k, v] = call.inputs().map(Tensor::require_grad);
    let _unused = call.attend([q.clone(), k.clone(), v.clone()]);
    let gradients = (q.clone() * 2.0).sum().backward();
    assert!(
        values(q.grad(&gradients).unwrap())
            .iter()
            .all(|&gradient| gradient == 2.0)
    );
    assert!(k.grad(&gradients).is_none() && v.grad(&gradients).is_none());
}

/// `out` and `lse` of one call may each be used many times and in any order.
#[test]
fn of_results_used_several_times() {
    for (golden, problem) in golden_with_d_lse() {
        let call = Call::new(&problem, &golden.tensors);
        let results = call.results_of(|inputs| {
            let (out, lse) = call.attend(inputs);
            let lse = lse.clone() * 0.25 + lse.clone() * 0.75;
            let out = out.clone() * 3.0 - out.clone() - out;
            (out, lse)
        });
        let (expected_out, expected) = (&golden.results.out, &golden.results);
        compare::tensor("out", &results.out, expected_out, 1e-4).unwrap();
        for (name, gradient, expected) in [
            ("dq", &results.dq, &expected.dq),
            ("dk", &results.dk, &expected.dk),
            ("dv", &results.dv, &expected.dv),
        ] {
            compare::tensor(name, gradient, expected, F32.gradients)
                .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
        }
    }
}

/// Gradients that nobody asked for are not there, and the others have the same bits.
#[test]
fn to_every_subset_of_the_inputs() {
    for stem in ["d_lse", "gqa_per_kv_head", "part_inside_unaligned"] {
        let golden = golden::named(stem);
        let problem = golden.problem();
        let call = Call::new(&problem, &golden.tensors);
        let all = call.results();
        let all = [all.dq, all.dk, all.dv];
        for subset in 1..8 {
            let wanted = [0, 1, 2].map(|at| subset >> at & 1 == 1);
            let mut flags = wanted.iter();
            let inputs = call
                .inputs()
                .map(|input| input.set_require_grad(*flags.next().unwrap()));
            let (out, lse) = call.attend(inputs.clone());
            let gradients = call.loss(out, lse).backward();
            for (at, input) in inputs.into_iter().enumerate() {
                let gradient = input.grad(&gradients).map(values);
                assert_eq!(gradient.is_some(), wanted[at], "{stem} {wanted:?}");
                if let Some(gradient) = gradient {
                    assert_eq!(compare::difference_in(stem, &gradient, &all[at]), None);
                }
            }
        }
    }
}

#[test]
fn to_nothing_without_autodiff() {
    let golden = golden::named("d_lse");
    let problem = golden.problem();
    let with = Call::new(&problem, &golden.tensors);
    let without = Call {
        device: crate::device(),
        ..Call::new(&problem, &golden.tensors)
    };
    let (out, lse) = without.attend(without.inputs());
    assert!(!out.is_autodiff() && !lse.is_autodiff());
    // Constants of an autodiff device are no part of a graph either.
    let (constant_out, constant_lse) = with.attend(with.inputs());
    assert!(!constant_out.is_tracked() && !constant_lse.is_tracked());
    let out = values(out);
    assert_eq!(
        compare::difference_in("out", &values(constant_out), &out),
        None
    );
    assert_eq!(values(constant_lse), values(lse));
    let tracked = with.results();
    assert_eq!(compare::difference_in("out", &tracked.out, &out), None);
}

/// A checkpointing device computes inputs again where they came from cheap operations, with the same bits.
#[test]
fn with_gradient_checkpointing() {
    let checkpointed = crate::device().autodiff().gradient_checkpointing();
    for golden in golden::all() {
        let problem = golden.problem();
        let on = |device: Device| {
            let call = Call {
                device,
                ..Call::new(&problem, &golden.tensors)
            };
            call.results_of(|inputs| {
                let inputs = inputs.map(|input| (input * 2.0).exp().log() * 0.5);
                let (out, lse) = call.attend(inputs);
                (out * 1.5, lse * 2.0)
            })
        };
        let plain = on(crate::device().autodiff());
        let recomputed = on(checkpointed.clone());
        if crate::RECOMPUTES_BITS {
            let difference = compare::difference(&recomputed, &plain);
            assert_eq!(difference, None, "{}", golden.name);
        } else {
            held(&golden.name, &recomputed, &plain);
        }
    }
}
