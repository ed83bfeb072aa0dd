//! Random calls against dense masked attention from Burn's own operations, in f64.

use burn::tensor::DType;

use super::dense;
use super::run::Call;
use crate::support::compare::{self, F32};
use crate::support::random;

#[test]
fn equal_dense_masked_attention() {
    for seed in 5000..5200 {
        let random::Case { problem, tensors } = random::case(seed);
        let results = Call::new(&problem, &tensors).results();
        let reference = Call {
            dtype: DType::F64,
            ..Call::new(&problem, &tensors)
        };
        let expected = reference.results_of(|inputs| dense::attend(&problem, inputs));
        compare::results(&results, &expected, F32)
            .unwrap_or_else(|miss| panic!("seed {seed}: {miss}\n{problem:#?}"));
    }
}
