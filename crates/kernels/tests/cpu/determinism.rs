//! Two runs give the same bits, whatever the number of threads.

use rayon::ThreadPoolBuilder;
use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cpu::Real;

use crate::engine::{self, Layout};
use crate::support::{Tensors, compare, golden, random};

fn repeats<F: Real>(name: &str, problem: &AttentionProblem, tensors: &Tensors) {
    let run = |threads: usize| {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| engine::run::<F>(problem, tensors, Layout::Bhsd))
    };
    let first = run(2);
    for threads in [1, 2, 2, 5] {
        let difference = compare::difference(&run(threads), &first);
        assert_eq!(difference, None, "{name} on {threads} threads");
    }
}

#[test]
fn golden_calls_repeat_bit_for_bit() {
    for golden in golden::all() {
        repeats::<f32>(&golden.name, &golden.problem(), &golden.tensors);
        repeats::<f64>(&golden.name, &golden.problem(), &golden.tensors);
    }
}

#[test]
fn random_calls_repeat_bit_for_bit() {
    for seed in 2000..2060 {
        let random::Case { problem, tensors } = random::case(seed);
        repeats::<f32>(&format!("seed {seed}"), &problem, &tensors);
    }
}
