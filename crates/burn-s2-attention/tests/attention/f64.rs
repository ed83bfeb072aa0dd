//! The golden data in f64.

use burn::tensor::DType;

use super::run::Call;
use crate::support::compare::{self, Tolerance};
use crate::support::golden;

#[test]
fn f64_holds_the_golden_data() {
    let f64_but_for_lse = Tolerance {
        out: 1e-7,
        lse: 2e-7,
        gradients: 1e-7,
    };
    for golden in golden::all() {
        let problem = golden.problem();
        let call = Call {
            dtype: DType::F64,
            ..Call::new(&problem, &golden.tensors)
        };
        compare::results(&call.results(), &golden.results, f64_but_for_lse)
            .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
    }
}
