//! What a call does not attend is never read: NaN there changes nothing, in the results or in the gradients.

use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cpu::Real;

use crate::engine::{self, Layout};
use crate::support::poison::poison;
use crate::support::{Tensors, compare, golden, random};

fn poison_changes_nothing<F: Real>(
    name: &str,
    problem: &AttentionProblem,
    mut tensors: Tensors,
) -> usize {
    for layout in Layout::ALL {
        let clean = engine::run::<F>(problem, &tensors, layout);
        let mut tensors = tensors.clone();
        poison(problem, &mut tensors);
        let poisoned = engine::run::<F>(problem, &tensors, layout);
        let difference = compare::difference(&poisoned, &clean);
        assert_eq!(difference, None, "{name} as {layout:?}");
    }
    poison(problem, &mut tensors)
}

#[test]
fn of_the_golden_calls() {
    let count = golden::all().into_iter().map(|golden| {
        poison_changes_nothing::<f32>(&golden.name, &golden.problem(), golden.tensors)
    });
    // Decode, parts of K/V and custom masks leave many keys unattended.
    let poisoned: usize = count.sum();
    println!("{poisoned} keys poisoned");
    assert!(poisoned > 500);
}

#[test]
fn of_random_calls() {
    let mut poisoned = 0;
    for seed in 1000..1150 {
        let random::Case { problem, tensors } = random::case(seed);
        poisoned += match seed % 3 {
            0 => poison_changes_nothing::<f64>(&format!("seed {seed}"), &problem, tensors),
            _ => poison_changes_nothing::<f32>(&format!("seed {seed}"), &problem, tensors),
        };
    }
    println!("{poisoned} keys poisoned");
    assert!(poisoned > 5000);
}

/// The other side of the promise: a NaN that is attended shows, and only where it is attended.
#[test]
fn an_attended_nan_reaches_the_output() {
    let golden = golden::named("mha_basic");
    let (problem, shape) = (golden.problem(), golden.shape);
    let (heads, seq, d) = (shape.num_heads, shape.seq_q, shape.head_dim);
    let block = golden.config.block_size;
    // Of the first sequence and head: a key in the middle of a chunk.
    let key = 21;
    for of_values in [false, true] {
        let mut tensors = golden.tensors.clone();
        let rows = if of_values {
            &mut tensors.v
        } else {
            &mut tensors.k
        };
        rows[key * d..][..d].fill(f32::NAN);
        let (out, lse) = engine::forward::<f32>(&problem, &tensors, Layout::Bhsd);
        for query in 0..seq {
            let attended = key <= query && problem.pattern().attends(0, query / block, key / block);
            let row = &out[query * d..][..d];
            if attended {
                assert!(
                    row.iter().all(|x| x.is_nan()),
                    "query {query} hides a NaN: {row:?}"
                );
                assert_eq!(lse[query].is_nan(), !of_values, "lse of query {query}");
            }
        }
        assert!(
            out[seq * d..].iter().all(|x| x.is_finite()),
            "of other heads, {heads} in all"
        );
    }
}
