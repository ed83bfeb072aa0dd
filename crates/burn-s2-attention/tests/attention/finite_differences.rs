//! Gradients against differences of the results, in f64.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_s2_attention::{
    PatternConfig, Rule, S2AttentionOptions, SequenceSpan, combine, s2_attention_with_lse,
};

use crate::common::host::values;

const SHAPES: [[usize; 4]; 3] = [[2, 4, 11, 3], [2, 2, 14, 3], [2, 2, 14, 2]];

/// Smooth values that are alike nowhere.
fn waves(count: usize, frequency: f64) -> Vec<f64> {
    (0..count)
        .map(|at| 1.5 * (frequency * (at as f64 + 0.3)).sin())
        .collect()
}

fn tensor<const D: usize>(values: Vec<f64>, shape: [usize; D]) -> Tensor<D> {
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values, shape), (&device, DType::F64))
}

/// A sum of all results, each with a weight of its own.
fn weighted<const D: usize>(tensor: Tensor<D>, frequency: f64) -> Tensor<1> {
    let shape = tensor.dims();
    let weights = waves(shape.iter().product(), frequency);
    (tensor.cast(DType::F64) * self::tensor(weights, shape)).sum()
}

/// Holds every element of every gradient of `loss` to a central difference of width `2 * step`.
fn check(loss: impl Fn([Tensor<4>; 3]) -> Tensor<1>, step: f64, tolerance: f64) {
    let inputs = [0, 1, 2].map(|at| waves(SHAPES[at].iter().product(), [0.71, 1.13, 1.91][at]));
    let tensors =
        |inputs: &[Vec<f64>; 3]| [0, 1, 2].map(|at| tensor(inputs[at].clone(), SHAPES[at]));
    let leaves = tensors(&inputs).map(Tensor::require_grad);
    let gradients = loss(leaves.clone()).backward();
    let mut large = 0;
    for (at, leaf) in leaves.into_iter().enumerate() {
        let gradient = values(leaf.grad(&gradients).unwrap());
        for (element, gradient) in gradient.into_iter().enumerate() {
            large += usize::from(gradient.abs() > 0.1);
            let moved = |by: f64| {
                let mut inputs = inputs.clone();
                inputs[at][element] += by;
                values(loss(tensors(&inputs)))[0]
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            let error = (gradient - difference).abs() / (1.0 + difference.abs());
            assert!(
                error <= tolerance,
                "element {element} of input {at}: {gradient:e}, by differences {difference:e}"
            );
        }
    }
    assert!(large > 100, "{large} gradients are no mere rounding");
}

fn call(rule: Rule) -> impl Fn([Tensor<4>; 3]) -> (Tensor<4>, Tensor<3>) {
    let config = PatternConfig::new(rule, 4, 4)
        .with_num_kv_heads(2)
        .with_head_offset(1);
    let pattern = config.build().unwrap();
    move |[q, k, v]| s2_attention_with_lse(q, k, v, &pattern, &S2AttentionOptions::default())
}

const RULES: [Rule; 2] = [
    Rule::LocalStride {
        local_blocks: 1,
        vert_stride: 3,
    },
    Rule::BidirectionalAbsolute {
        local_left: 1,
        local_right: 1,
        vert_stride: 2,
    },
];

#[test]
fn of_out() {
    for rule in RULES {
        let attend = call(rule);
        check(|inputs| weighted(attend(inputs).0, 0.37), 1e-4, 1e-7);
    }
}

/// `lse` is an f32, so that differences of it are coarse.
#[test]
fn of_lse() {
    for rule in RULES {
        let attend = call(rule);
        check(|inputs| weighted(attend(inputs).1, 0.53), 1e-2, 5e-4);
    }
}

/// Through `combine` of two parts of the keys, out and lse together.
#[test]
fn of_combined_parts() {
    let config = PatternConfig::local_stride(1, 3, 4, 4).with_num_kv_heads(2);
    let pattern = config.build().unwrap();
    let attend = |[q, k, v]: [Tensor<4>; 3]| {
        let part = |start: usize, len: usize| {
            let span = SequenceSpan {
                q_start: 3,
                q_len: 11,
                kv_start: start,
                kv_len: len,
            };
            let options = S2AttentionOptions::default().with_positions(vec![span; 2]);
            let (k, v) = (
                k.clone().narrow(2, start, len),
                v.clone().narrow(2, start, len),
            );
            s2_attention_with_lse(q.clone(), k, v, &pattern, &options)
        };
        combine(vec![part(0, 5), part(5, 9)], Default::default())
    };
    check(|inputs| weighted(attend(inputs).0, 0.37), 1e-3, 1e-4);
    check(|inputs| weighted(attend(inputs).1, 0.53), 1e-2, 5e-4);
}
