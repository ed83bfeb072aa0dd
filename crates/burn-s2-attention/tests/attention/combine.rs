//! Merging attention over parts of the keys.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::{
    Layout, Pattern, S2AttentionOptions, SequenceSpan, combine, s2_attention_with_lse,
};

use super::run::{Call, arranged};
use crate::common::host::values;
use crate::support::compare::{self, F32};
use crate::support::golden::{self, Golden};

type Part = (Tensor<4>, Tensor<3>);

/// Attention over the keys `start..end` alone.
fn part(
    golden: &Golden,
    pattern: &Pattern,
    [q, k, v]: [Tensor<4>; 3],
    [start, end]: [usize; 2],
) -> Part {
    let span = SequenceSpan {
        kv_start: golden.span.kv_start + start,
        kv_len: end - start,
        ..golden.span
    };
    let options = S2AttentionOptions::default().with_positions(vec![span; golden.shape.batch]);
    let keys = |x: Tensor<4>| x.narrow(2, start, end - start);
    s2_attention_with_lse(q, keys(k), keys(v), pattern, &options)
}

/// Parts between the cuts, which fall on no block's edge.
fn parts(golden: &Golden, pattern: &Pattern, inputs: &[Tensor<4>; 3], cuts: &[usize]) -> Vec<Part> {
    let ends = cuts.windows(2);
    ends.map(|ends| part(golden, pattern, inputs.clone(), [ends[0], ends[1]]))
        .collect()
}

fn cuts(golden: &Golden) -> Vec<usize> {
    let seq = golden.shape.seq_kv;
    vec![0, seq / 5 + 1, seq / 2, seq - 2, seq]
}

/// Holds two pairs to each other.
fn same(name: &str, (out, lse): &Part, (other_out, other_lse): &Part, bar: f64) {
    let pairs = [
        ("out", values(out.clone()), values(other_out.clone())),
        ("lse", values(lse.clone()), values(other_lse.clone())),
    ];
    for (tensor, a, b) in pairs {
        compare::tensor(tensor, &a, &b, bar).unwrap_or_else(|miss| panic!("{name}: {miss}"));
    }
}

/// Results and gradients alike: those of the golden data, which know of no parts.
#[test]
fn parts_give_the_whole_and_its_gradients() {
    for golden in golden::all() {
        let problem = golden.problem();
        let call = Call::new(&problem, &golden.tensors);
        let results = call.results_of(|inputs| {
            combine(
                parts(&golden, problem.pattern(), &inputs, &cuts(&golden)),
                Layout::Bhsd,
            )
        });
        compare::results(&results, &golden.results, F32)
            .unwrap_or_else(|miss| panic!("{}: {miss}", golden.name));
    }
}

#[test]
fn in_either_layout() {
    for stem in ["d_lse", "value_dim", "custom_empty_rows"] {
        let golden = golden::named(stem);
        let problem = golden.problem();
        let call = Call::new(&problem, &golden.tensors);
        let results = call.results_of(|inputs| {
            let parts = parts(&golden, problem.pattern(), &inputs, &cuts(&golden)).into_iter();
            let parts = parts
                .map(|(out, lse)| (arranged(out, Layout::Bshd), lse))
                .collect();
            let (out, lse) = combine(parts, Layout::Bshd);
            (arranged(out, Layout::Bshd), lse)
        });
        compare::results(&results, &golden.results, F32).unwrap();
    }
}

#[test]
fn in_any_order_and_grouping() {
    for golden in golden::all() {
        let problem = golden.problem();
        let call = Call {
            device: crate::device(),
            ..Call::new(&problem, &golden.tensors)
        };
        let parts = parts(&golden, problem.pattern(), &call.inputs(), &cuts(&golden));
        let [a, b, c, d] = <[Part; 4]>::try_from(parts).unwrap();
        let merge =
            |parts: &[&Part]| combine(parts.iter().copied().cloned().collect(), Layout::Bhsd);
        let whole = merge(&[&a, &b, &c, &d]);
        let left = merge(&[&merge(&[&merge(&[&a, &b]), &c]), &d]);
        let right = merge(&[&a, &merge(&[&b, &merge(&[&c, &d])])]);
        let turned = merge(&[&d, &b, &a, &c]);
        for other in [left, right, turned] {
            same(&golden.name, &other, &whole, 2e-6);
        }
    }
}

/// `out = 0` and `lse = -inf` leave the other part as it is, to the bit.
#[test]
fn an_empty_part_is_the_identity() {
    for stem in ["d_lse", "custom_empty_rows", "part_after"] {
        let golden = golden::named(stem);
        let problem = golden.problem();
        for &dtype in crate::ALL_DTYPES {
            let call = Call {
                dtype,
                device: crate::device(),
                ..Call::new(&problem, &golden.tensors)
            };
            let whole = call.attend(call.inputs());
            let empty = (whole.0.zeros_like(), whole.1.full_like(f64::NEG_INFINITY));
            let orders = [
                vec![whole.clone()],
                vec![whole.clone(), empty.clone()],
                vec![empty.clone(), whole.clone()],
                vec![empty.clone(), whole.clone(), empty.clone()],
            ];
            for parts in orders {
                let merged = combine(parts, Layout::Bhsd);
                assert_eq!((merged.0.dtype(), merged.1.dtype()), (dtype, DType::F32));
                same(stem, &merged, &whole, 0.0);
            }
            let nothing = combine(vec![empty.clone(), empty.clone()], Layout::Bhsd);
            same(stem, &nothing, &empty, 0.0);
        }
    }
}

/// The parts of a file's empty rows are all empty: gradients stay finite, and 0 where nothing is attended.
#[test]
fn empty_rows_have_zero_gradients() {
    let golden = golden::named("part_after");
    let problem = golden.problem();
    let call = Call::new(&problem, &golden.tensors);
    let results = call.results_of(|inputs| {
        combine(
            parts(&golden, problem.pattern(), &inputs, &cuts(&golden)),
            Layout::Bhsd,
        )
    });
    for (name, values) in results.named() {
        let nothing = if name == "lse" {
            f64::NEG_INFINITY
        } else {
            0.0
        };
        assert!(values.iter().all(|&value| value == nothing), "{name}");
    }
}

/// The gradients of the parts themselves, against the formulas: `d out_i = w_i d_out` and
/// `d lse_i = w_i (d_lse + d_out . (out_i - out))` with `w_i = exp(lse_i - lse)`.
#[test]
fn gradients_of_the_parts() {
    let golden = golden::named("d_lse");
    let problem = golden.problem();
    let call = Call::new(&problem, &golden.tensors);
    let parts = parts(&golden, problem.pattern(), &call.inputs(), &cuts(&golden));
    let parts: Vec<Part> = parts
        .into_iter()
        .map(|(out, lse)| (out.detach().require_grad(), lse.detach().require_grad()))
        .collect();
    let (out, lse) = combine(parts.clone(), Layout::Bhsd);
    let gradients = call.loss(out.clone(), lse.clone()).backward();
    let (out, lse) = (values(out), values(lse));
    let dv = golden.shape.value_dim;
    for (part_out, part_lse) in parts {
        let d_part_out = values(part_out.grad(&gradients).unwrap());
        let d_part_lse = values(part_lse.grad(&gradients).unwrap());
        let (part_out, part_lse) = (values(part_out), values(part_lse));
        let (mut expected_out, mut expected_lse) = (Vec::new(), Vec::new());
        for row in 0..lse.len() {
            let weight = (part_lse[row] - lse[row]).exp();
            let elements = row * dv..(row + 1) * dv;
            let d_out = golden.tensors.d_out[elements.clone()]
                .iter()
                .map(|&d| f64::from(d));
            let differences = part_out[elements.clone()].iter().zip(&out[elements]);
            let dot: f64 = differences
                .zip(d_out.clone())
                .map(|((part, out), d)| (part - out) * d)
                .sum();
            let d_lse = f64::from(golden.tensors.d_lse.as_ref().unwrap()[row]);
            expected_lse.push(weight * (d_lse + dot));
            expected_out.extend(d_out.map(|d| weight * d));
        }
        compare::tensor("d out", &d_part_out, &expected_out, 1e-5).unwrap();
        compare::tensor("d lse", &d_part_lse, &expected_lse, 1e-5).unwrap();
    }
}

/// Large and far apart: the weights neither overflow nor lose the smaller part where it counts.
#[test]
fn lse_of_any_size() {
    let device = crate::device();
    for shift in [-1e4, -100.0, 0.0, 100.0, 1e4] {
        let part = |value: f64, lse: f64| {
            let out = Tensor::<4>::full([1, 1, 1, 2], value, &device);
            (out, Tensor::<3>::full([1, 1, 1], lse + shift, &device))
        };
        let (out, lse) = combine(vec![part(1.0, 0.0), part(4.0, 3f64.ln())], Layout::Bhsd);
        // The weights are 1/4 and 3/4; lse of size 1e4 has 1e-3 of rounding.
        let bar = 2e-7 * (1.0 + shift.abs());
        compare::tensor("out", &values(out), &[3.25, 3.25], bar).unwrap();
        compare::tensor("lse", &values(lse), &[4f64.ln() + shift], 2e-7).unwrap();
    }
}
