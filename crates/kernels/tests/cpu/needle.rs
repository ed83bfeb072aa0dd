//! A huge logit in a block that a query drops must not move its output; in one that it keeps, it must.

use crate::engine::{self, Layout};
use crate::support::golden;
use crate::support::needle::{hold_all, places, planted, share_component};

#[test]
fn needles_move_what_attends_them_and_nothing_else() {
    let [mut dropped, mut kept] = [0, 0];
    for mut golden in golden::all() {
        let shape = golden.shape;
        if shape.batch > 1 {
            continue;
        }
        let (problem, tensors) = (golden.problem(), &mut golden.tensors);
        share_component(&mut tensors.q, &mut tensors.k, shape.head_dim);
        let (before, _) = engine::forward::<f32>(&problem, tensors, Layout::Bhsd);
        for kv_head in 0..shape.num_kv_heads {
            for needle in places(&golden) {
                let tensors = planted(&golden, kv_head, needle);
                let (after, _) = engine::forward::<f32>(&problem, &tensors, Layout::Bhsd);
                let seen = hold_all(&golden, [&before, &after], kv_head, needle)
                    .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
                dropped += seen[0];
                kept += seen[1];
            }
        }
    }
    println!("{dropped} pairs dropped, {kept} kept");
    assert!(dropped > 100_000 && kept > 30_000);
}
