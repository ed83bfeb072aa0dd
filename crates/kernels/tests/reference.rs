//! The host oracle against the golden data.

mod support;

use support::compare::{self, Tolerance};
use support::{golden, oracle};

/// The golden data are float64 results stored as f32: half a unit in the last place is 6e-8.
const STORED_AS_F32: Tolerance = Tolerance {
    out: 1e-7,
    lse: 1e-7,
    gradients: 1e-7,
};

#[test]
fn equals_the_golden_data() {
    for golden in golden::all() {
        let results = oracle(&golden.problem(), &golden.tensors);
        compare::results(&results, &golden.results, STORED_AS_F32)
            .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
    }
}
