//! The golden data, forward and backward.

use s2_attention_kernels::cpu::Real;

use crate::engine::{self, Layout};
use crate::support::compare::{self, F32, STORED, Tolerance};
use crate::support::golden;

fn holds<F: Real>(tolerance: Tolerance) {
    for golden in golden::all() {
        for layout in Layout::ALL {
            let results = engine::run::<F>(&golden.problem(), &golden.tensors, layout);
            compare::results(&results, &golden.results, tolerance)
                .unwrap_or_else(|miss| panic!("{} as {layout:?}: {miss}", golden.name));
        }
    }
}

#[test]
fn f32_holds_the_golden_data() {
    holds::<f32>(F32);
}

#[test]
fn f64_holds_the_golden_data() {
    holds::<f64>(STORED);
}

#[test]
fn every_subset_of_the_gradients_has_the_same_bits() {
    for golden in golden::all() {
        let (problem, tensors) = (golden.problem(), &golden.tensors);
        let forward = engine::forward::<f32>(&problem, tensors, Layout::Bhsd);
        let gradients =
            |wanted| engine::backward::<f32>(&problem, tensors, &forward, Layout::Bhsd, wanted);
        let all = gradients([true; 3]);
        for subset in 0..7 {
            let wanted = [0, 1, 2].map(|at| subset >> at & 1 == 1);
            for (at, gradient) in gradients(wanted).into_iter().enumerate() {
                assert_eq!(gradient.is_some(), wanted[at]);
                let (Some(gradient), Some(full)) = (gradient, &all[at]) else {
                    continue;
                };
                let difference = compare::difference_in(["dq", "dk", "dv"][at], &gradient, full);
                assert_eq!(difference, None, "{} with {wanted:?}", golden.name);
            }
        }
    }
}
