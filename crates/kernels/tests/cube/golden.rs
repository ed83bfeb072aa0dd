//! The golden data, forward and backward.

use crate::engine;
use crate::support::compare::{self, F32};
use crate::support::golden;

#[test]
fn f32_holds_the_golden_data() {
    let mut missed = Vec::new();
    for engine in engine::layouts() {
        for golden in golden::all() {
            let results = engine.run(&golden.problem(), &golden.tensors);
            if let Err(miss) = compare::results(&results, &golden.results, F32) {
                missed.push(format!("{} as {:?}: {miss}", golden.name, engine.layout));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
