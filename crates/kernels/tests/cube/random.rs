//! Random calls against the host oracle.

use crate::engine;
use crate::support::compare::{self, F32};
use crate::support::{oracle, random};

const CALLS: u64 = 60;

#[test]
fn f32_holds_the_oracle() {
    let engines = engine::layouts();
    for seed in 0..CALLS {
        let random::Case { problem, tensors } = random::case(seed);
        let Some(engine) = engines.get(seed as usize % 3) else {
            return;
        };
        let results = engine.run(&problem, &tensors);
        compare::results(&results, &oracle(&problem, &tensors), F32).unwrap_or_else(|miss| {
            panic!("seed {seed} as {:?}: {miss}\n{problem:#?}", engine.layout)
        });
    }
}
