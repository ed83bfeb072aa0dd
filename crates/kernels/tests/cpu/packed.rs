//! Packed documents and padding before the tokens.

use s2_attention_kernels::cpu::Real;

use crate::engine::{self, Layout};
use crate::support::compare::{self, F32, F64, Tolerance};
use crate::support::packed::{
    alone, packed_case, padded_case, poison_others, results_of, tensors_of,
};
use crate::support::random::{CLASSES, Case};
use crate::support::{oracle, poison::poison};

fn case(seed: u64) -> Case {
    let class = CLASSES[seed as usize % CLASSES.len()];
    let case = if seed.is_multiple_of(3) {
        padded_case
    } else {
        packed_case
    };
    case(class, seed)
}

fn holds<F: Real>(seeds: std::ops::Range<u64>, tolerance: Tolerance) {
    for seed in seeds {
        let Case { problem, tensors } = case(seed);
        let layout = Layout::ALL[seed as usize % 3];
        let results = engine::run::<F>(&problem, &tensors, layout);
        compare::results(&results, &oracle(&problem, &tensors), tolerance)
            .unwrap_or_else(|miss| panic!("seed {seed} as {layout:?}: {miss}\n{problem:#?}"));
    }
}

#[test]
fn f32_holds_the_oracle() {
    holds::<f32>(0..400, F32);
}

#[test]
fn f64_holds_the_oracle() {
    holds::<f64>(400..600, F64);
}

/// The forward pass gives a sequence the bits that a call of it alone gives.
#[test]
fn sequences_are_calls_of_their_own() {
    for seed in 600..800 {
        let Case { problem, tensors } = case(seed);
        let results = engine::run::<f32>(&problem, &tensors, Layout::Bshd);
        for sequence in problem.sequences() {
            let Some(alone) = alone(&problem, sequence) else {
                continue;
            };
            let part = results_of(&problem, sequence, &results);
            let tensors = tensors_of(&problem, sequence, &tensors);
            let (out, lse) = engine::forward::<f32>(&alone, &tensors, Layout::Bhsd);
            for (name, part, alone) in [("out", &part.out, &out), ("lse", &part.lse, &lse)] {
                let same = part
                    .iter()
                    .zip(alone)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same && part.len() == alone.len(), "seed {seed}: {name}");
            }
        }
    }
}

/// NaN in padding, and in all of every second document, changes no bit of the others.
#[test]
fn nothing_leaks_between_sequences() {
    for seed in 800..1000 {
        let Case { problem, tensors } = case(seed);
        let clean = engine::run::<f32>(&problem, &tensors, Layout::Bshd);
        let mut padding = tensors.clone();
        poison(&problem, &mut padding);
        let poisoned = engine::run::<f32>(&problem, &padding, Layout::Bshd);
        assert_eq!(compare::difference(&poisoned, &clean), None, "seed {seed}");
        for parity in 0..2 {
            let kept = |number: usize| number % 2 == parity;
            let others = poison_others(&problem, &tensors, kept);
            let poisoned = engine::run::<f32>(&problem, &others, Layout::Bshd);
            let sequences = problem.sequences().iter().enumerate();
            for (number, sequence) in sequences.filter(|(number, _)| kept(*number)) {
                let part = |all| results_of(&problem, sequence, all);
                let difference = compare::difference(&part(&poisoned), &part(&clean));
                assert_eq!(difference, None, "seed {seed}, sequence {number}");
            }
        }
    }
}
