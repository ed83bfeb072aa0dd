//! A huge logit in a block that a query drops must not move its output; in one that it keeps, it must.

use crate::engine::{self, Layout};
use crate::support::golden::{self, Golden};

/// Plants a key that every query of a key/value head agrees with, and holds every query to the pattern's word.
fn plant(golden: &Golden, kv_head: usize, needle: usize) -> [usize; 2] {
    let (problem, shape) = (golden.problem(), golden.shape);
    let (d, dv, block) = (shape.head_dim, shape.value_dim, golden.config.block_size);
    let mut tensors = golden.tensors.clone();
    // All queries share a component that no key has.
    tensors
        .q
        .iter_mut()
        .step_by(d)
        .for_each(|component| *component = 4.0);
    tensors
        .k
        .iter_mut()
        .step_by(d)
        .for_each(|component| *component = 0.0);
    let (before, _) = engine::forward::<f32>(&problem, &tensors, Layout::Bhsd);
    let row = kv_head * shape.seq_kv + needle;
    tensors.k[row * d] = 20.0 * (d as f32).sqrt();
    tensors.v[row * dv..][..dv].fill(100.0);
    let (after, _) = engine::forward::<f32>(&problem, &tensors, Layout::Bhsd);

    let key = golden.span.kv_start + needle;
    let group = shape.num_heads / shape.num_kv_heads;
    let mut seen = [0, 0];
    for head in 0..shape.num_heads {
        let causal = problem.pattern().head(head).is_causal();
        for token in 0..shape.seq_q {
            let query = golden.span.q_start + token;
            let kept = head / group == kv_head
                && (!causal || key <= query)
                && problem.pattern().attends(head, query / block, key / block);
            let at = (head * shape.seq_q + token) * dv;
            let moved = before[at..][..dv].iter().zip(&after[at..][..dv]);
            let place = format!("{}: key {key}, head {head}, query {query}", golden.name);
            if kept {
                let least = moved
                    .map(|(before, after)| (after - before).abs())
                    .fold(f64::MAX, f64::min);
                assert!(least > 50.0, "{place}: kept, but moved by {least} only");
            } else {
                let same = moved.into_iter().all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{place}: dropped, but moved");
            }
            seen[usize::from(kept)] += 1;
        }
    }
    seen
}

#[test]
fn needles_move_what_attends_them_and_nothing_else() {
    let [mut dropped, mut kept] = [0, 0];
    for golden in golden::all() {
        if golden.shape.batch > 1 {
            continue;
        }
        let block = golden.config.block_size;
        for kv_head in 0..golden.shape.num_kv_heads {
            // The last key of every block, and the last of all.
            let ends = (block - 1..golden.shape.seq_kv).step_by(block);
            for needle in ends.chain([golden.shape.seq_kv - 1]) {
                let seen = plant(&golden, kv_head, needle);
                dropped += seen[0];
                kept += seen[1];
            }
        }
    }
    println!("{dropped} pairs dropped, {kept} kept");
    assert!(dropped > 100_000 && kept > 30_000);
}
