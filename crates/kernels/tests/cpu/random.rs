//! Random calls against the host oracle.

use s2_attention_kernels::cpu::Real;

use crate::engine::{self, Layout};
use crate::support::compare::{self, F32, F64, Tolerance};
use crate::support::{oracle, random};

const CALLS: u64 = 1000;

fn holds<F: Real>(seeds: std::ops::Range<u64>, tolerance: Tolerance) {
    for seed in seeds {
        let random::Case { problem, tensors } = random::case(seed);
        let layout = Layout::ALL[seed as usize % 3];
        let results = engine::run::<F>(&problem, &tensors, layout);
        compare::results(&results, &oracle(&problem, &tensors), tolerance)
            .unwrap_or_else(|miss| panic!("seed {seed} as {layout:?}: {miss}\n{problem:#?}"));
    }
}

#[test]
fn f32_holds_the_oracle() {
    holds::<f32>(0..CALLS, F32);
}

#[test]
fn f64_holds_the_oracle() {
    holds::<f64>(CALLS..CALLS + CALLS / 2, F64);
}
