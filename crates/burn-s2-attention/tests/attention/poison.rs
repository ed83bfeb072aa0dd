//! NaN in what a call must not read reaches neither results nor gradients.

use burn::tensor::DType;

use super::run::Call;
use crate::support::poison::poison;
use crate::support::{compare, golden, random};

#[test]
fn changes_nothing() {
    let golden = golden::all().into_iter().map(|golden| {
        let problem = golden.problem();
        (golden.name, problem, golden.tensors)
    });
    let random = (1200..1260).map(|seed| {
        let random::Case { problem, tensors } = random::case(seed);
        (format!("seed {seed}"), problem, tensors)
    });
    let mut poisoned_keys = 0;
    for (name, problem, tensors) in golden.chain(random) {
        let mut poisoned = tensors.clone();
        poisoned_keys += poison(&problem, &mut poisoned);
        for dtype in [DType::F32, DType::BF16] {
            let results = |tensors| {
                Call {
                    dtype,
                    ..Call::new(&problem, tensors)
                }
                .results()
            };
            let difference = compare::difference(&results(&poisoned), &results(&tensors));
            assert_eq!(difference, None, "{name} in {dtype:?}");
        }
    }
    assert!(poisoned_keys > 3000, "{poisoned_keys} keys poisoned");
}
