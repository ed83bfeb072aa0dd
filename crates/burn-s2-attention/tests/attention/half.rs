//! f16 and bf16 against what a dense computation in the same type reaches.

use burn::tensor::{DType, Device};
use s2_attention_kernels::AttentionProblem;

use super::dense;
use super::run::{Call, tensor};
use crate::common::host::values;
use crate::support::{Results, Tensors, compare, golden, oracle, random};

/// Rounds to `dtype` and back.
fn rounded(values: &[f32], dtype: DType) -> Vec<f32> {
    let tensor = tensor::<1>(values, [values.len()], dtype, &Device::flex());
    self::values(tensor)
        .into_iter()
        .map(|value| value as f32)
        .collect()
}

/// The inputs of the type: rounded before anything is computed from them.
fn inputs(tensors: &Tensors, dtype: DType) -> Tensors {
    Tensors {
        q: rounded(&tensors.q, dtype),
        k: rounded(&tensors.k, dtype),
        v: rounded(&tensors.v, dtype),
        d_out: rounded(&tensors.d_out, dtype),
        d_lse: tensors.d_lse.clone(),
    }
}

/// Largest and relative Frobenius error.
fn errors(actual: &[f64], expected: &[f64]) -> [f64; 2] {
    let differences = || actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    let norm = expected.iter().map(|e| e * e).sum::<f64>().sqrt();
    let distance = differences()
        .map(|difference| difference * difference)
        .sum::<f64>()
        .sqrt();
    // `max` would pass over a NaN.
    let largest = differences().fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
    [
        largest,
        if distance == 0.0 {
            0.0
        } else {
            distance / norm
        },
    ]
}

/// At most 1.5 times plain's largest error and 1.2 times its Frobenius error; lse within 1e-4.
///
/// # Errors
/// Every bar that is missed.
fn hold(results: &Results, plain: &Results, expected: &Results) -> Result<(), String> {
    let mut missed = Vec::new();
    let tensors = results
        .named()
        .into_iter()
        .zip(plain.named())
        .zip(expected.named());
    for (((name, results), (_, plain)), (_, expected)) in tensors {
        if name == "lse" {
            if let Err(miss) = compare::tensor(name, results, expected, 1e-4) {
                missed.push(miss);
            }
            continue;
        }
        let [largest, frobenius] = errors(results, expected);
        let [plain_largest, plain_frobenius] = errors(plain, expected);
        let bars = [
            ("largest", largest, 1.5 * plain_largest),
            ("Frobenius", frobenius, 1.2 * plain_frobenius),
        ];
        for (kind, error, bar) in bars {
            if error.is_nan() || error > bar {
                missed.push(format!("{name}: {kind} error {error:e} above {bar:e}"));
            }
        }
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(missed.join("; "))
    }
}

fn check(name: &str, problem: &AttentionProblem, tensors: &Tensors) -> Result<(), String> {
    for dtype in [DType::F16, DType::BF16] {
        let tensors = inputs(tensors, dtype);
        let call = Call {
            dtype,
            ..Call::new(problem, &tensors)
        };
        let plain = dense::plain(&Call {
            device: Device::flex(),
            dtype,
            ..Call::new(problem, &tensors)
        });
        hold(&call.results(), &plain, &oracle(problem, &tensors))
            .map_err(|miss| format!("{name} in {dtype:?}: {miss}"))?;
    }
    Ok(())
}

#[test]
fn golden_calls_err_no_more_than_plain() {
    let missed: Vec<String> = golden::all()
        .iter()
        .filter_map(|golden| check(&golden.name, &golden.problem(), &golden.tensors).err())
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn random_calls_err_no_more_than_plain() {
    let missed: Vec<String> = (7000..7100)
        .filter_map(|seed| {
            let random::Case { problem, tensors } = random::case(seed);
            check(&format!("seed {seed}"), &problem, &tensors).err()
        })
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// The bars can be missed: a wrong pattern, and a result of fewer digits.
#[test]
fn the_bars_catch_what_they_should() {
    let golden = golden::named("mha_basic");
    let dtype = DType::F16;
    let tensors = inputs(&golden.tensors, dtype);
    let problem = golden.problem();
    let expected = oracle(&problem, &tensors);
    let plain = dense::plain(&Call {
        device: Device::flex(),
        dtype,
        ..Call::new(&problem, &tensors)
    });

    let moved = golden.problem_with(&golden.config.clone().with_head_offset(1));
    let results = Call {
        dtype,
        ..Call::new(&moved, &tensors)
    }
    .results();
    assert!(hold(&results, &plain, &expected).is_err());

    let mut results = Call {
        dtype,
        ..Call::new(&problem, &tensors)
    }
    .results();
    assert!(hold(&results, &plain, &expected).is_ok());
    let out: Vec<f32> = results.out.iter().map(|&x| x as f32).collect();
    results.out = crate::support::widen(&rounded(&out, DType::BF16));
    assert!(hold(&results, &plain, &expected).is_err());
}

/// The result has the inputs' type, lse is f32.
#[test]
fn dtypes_of_the_results() {
    let golden = golden::named("shorter_than_block");
    let problem = golden.problem();
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let call = Call {
            dtype,
            ..Call::new(&problem, &golden.tensors)
        };
        let leaves = call.inputs().map(|input| input.require_grad());
        let (out, lse) = call.attend(leaves.clone());
        assert_eq!((out.dtype(), lse.dtype()), (dtype, DType::F32));
        let gradients = call.loss(out, lse).backward();
        for leaf in leaves {
            assert_eq!(leaf.grad(&gradients).unwrap().dtype(), dtype);
        }
    }
}
