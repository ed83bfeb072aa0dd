//! Rotary embedding against the written formula.

use burn::nn::RotaryEncodingConfig;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_s2_attention::Layout;
use burn_s2_attention::module::{ModuleConfigError, RopeConfig, RopeScaling};

use crate::common::host::values;
use crate::common::panics::panic_text;
use crate::common::tensors::{assert_close, distance, normal, normal_values};

const HEAD_DIM: usize = 16;

/// The formula, one element at a time: `x` is `[batch, seq, heads, d]`, batch item `i` starts at `starts[i]`.
fn written_formula(
    x: &[f64],
    shape: [usize; 4],
    frequency: impl Fn(usize) -> f64,
    starts: &[usize],
) -> Vec<f64> {
    let [_, seq, heads, d] = shape;
    let mut out = vec![0.0; x.len()];
    for (b, start) in starts.iter().enumerate() {
        for s in 0..seq {
            for h in 0..heads {
                let row = ((b * seq + s) * heads + h) * d;
                for k in 0..d / 2 {
                    let angle = (start + s) as f64 * frequency(k);
                    let (x1, x2) = (x[row + k], x[row + k + d / 2]);
                    out[row + k] = x1 * angle.cos() - x2 * angle.sin();
                    out[row + k + d / 2] = x2 * angle.cos() + x1 * angle.sin();
                }
            }
        }
    }
    out
}

fn base(theta: f64) -> impl Fn(usize) -> f64 {
    move |k| 1.0 / theta.powf((2 * k) as f64 / HEAD_DIM as f64)
}

/// Error of `config` against the formula with `frequency`, in f64 and in f32.
fn errors(config: &RopeConfig, frequency: impl Fn(usize) -> f64, starts: &[usize]) -> [f64; 2] {
    let device = Device::flex();
    let shape = [starts.len(), 37, 3, HEAD_DIM];
    let x = normal_values(shape.iter().product(), 1);
    let expected = TensorData::new(written_formula(&x, shape, frequency, starts), shape);
    let expected = Tensor::<4>::from_data(expected, (&device, DType::F64));
    [DType::F64, DType::F32].map(|dtype| {
        let x = Tensor::<4>::from_data(TensorData::new(x.clone(), shape), (&device, dtype));
        let out = config.init(HEAD_DIM).forward(x, Layout::Bshd, starts);
        assert_eq!(out.dtype(), dtype);
        distance(out.cast(DType::F64), expected.clone())
    })
}

#[test]
fn follows_the_written_formula() {
    for theta in [10_000.0, 500_000.0] {
        for starts in [[0, 0], [0, 1000], [131_072, 77]] {
            let [f64_error, f32_error] =
                errors(&RopeConfig::new().with_theta(theta), base(theta), &starts);
            // An angle cannot be known better than to the last bit of its frequency.
            let last_bit = f64::EPSILON * (starts[0] + starts[1] + 40) as f64;
            assert!(f64_error < last_bit, "{f64_error:e}");
            assert!(f32_error < 5e-7, "{f32_error:e}");
        }
    }
}

#[test]
fn linear_scaling_divides_positions() {
    let config = RopeConfig::new().with_scaling(RopeScaling::Linear { factor: 4.0 });
    let frequency = base(10_000.0);
    assert!(errors(&config, |k| frequency(k) / 4.0, &[0, 500])[0] < 1e-13);
}

#[test]
fn llama3_scaling_is_the_published_one() {
    // Transcribed case by case from the description of the published checkpoints, with wavelengths.
    fn published(frequency: f64) -> f64 {
        let (factor, low, high, context) = (8.0, 1.0, 4.0, 8192.0);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength < context / high {
            frequency
        } else if wavelength > context / low {
            frequency / factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
    let config = RopeConfig::new()
        .with_theta(500_000.0)
        .with_scaling(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192,
        });
    let head_dim = 128;
    let rope = config.init(head_dim);
    let mut regions = [0; 3];
    for (k, frequency) in rope.frequencies().iter().enumerate() {
        let unscaled = 500_000f64.powf(-2.0 * k as f64 / head_dim as f64);
        let expected = published(unscaled);
        assert!(
            (frequency - expected).abs() <= 1e-14 * expected,
            "{k}: {frequency} {expected}"
        );
        let region = if expected == unscaled {
            0
        } else if expected > 0.1251 * unscaled {
            1
        } else {
            2
        };
        regions[region] += 1;
    }
    assert!(
        regions.iter().all(|&count| count > 3),
        "each case must occur: {regions:?}"
    );
}

#[test]
fn frequency_factors_and_amplitude() {
    let factors: Vec<f64> = (0..HEAD_DIM / 2).map(|k| 1.0 + k as f64).collect();
    let scaling = |amplitude| RopeScaling::PerFrequency {
        factors: factors.clone(),
        amplitude,
    };
    let frequency = base(10_000.0);
    let config = RopeConfig::new().with_scaling(scaling(1.0));
    assert!(errors(&config, |k| frequency(k) / (1.0 + k as f64), &[3, 900])[0] < 1e-13);

    let x = normal([1, 10, 2, HEAD_DIM], 2, &Device::flex());
    let louder = RopeConfig::new()
        .with_scaling(scaling(1.25))
        .init(HEAD_DIM)
        .forward(x.clone(), Layout::Bshd, &[5]);
    assert_close(
        louder,
        config.init(HEAD_DIM).forward(x, Layout::Bshd, &[5]) * 1.25,
        1e-6,
    );
}

#[test]
fn scores_depend_on_the_distance_alone() {
    let device = Device::flex();
    let rope = RopeConfig::new().init(64);
    let q = normal([1, 1, 1, 64], 3, &device).cast(DType::F64);
    let k = normal([1, 1, 1, 64], 4, &device).cast(DType::F64);
    let score = |q_position: usize, k_position: usize| {
        let q = rope.forward(q.clone(), Layout::Bshd, &[q_position]);
        let k = rope.forward(k.clone(), Layout::Bshd, &[k_position]);
        values((q * k).sum())[0]
    };
    for (distance, shift) in [(0, 1), (5, 1), (5, 1000), (300, 123_456)] {
        assert!((score(distance, 0) - score(distance + shift, shift)).abs() < 1e-9);
    }
    assert!(
        (score(5, 0) - score(6, 0)).abs() > 1e-3,
        "another distance is another score"
    );
}

#[test]
fn layouts_agree() {
    let rope = RopeConfig::new().init(HEAD_DIM);
    let x = normal([2, 21, 3, HEAD_DIM], 5, &Device::flex());
    let bshd = rope.forward(x.clone(), Layout::Bshd, &[4, 9]);
    let bhsd = rope.forward(x.swap_dims(1, 2), Layout::Bhsd, &[4, 9]);
    assert_eq!(values(bshd), values(bhsd.swap_dims(1, 2)));
}

/// Burn's encoding turns neighbours; with the elements of each head put in turn the two are the same rotation.
#[test]
fn is_burns_encoding_with_halves_interleaved() {
    let device = Device::flex();
    let x = normal([2, 3, 40, HEAD_DIM], 6, &device);
    let interleave = |x: Tensor<4>| {
        x.reshape([2, 3, 40, 2, HEAD_DIM / 2])
            .swap_dims(3, 4)
            .reshape([2, 3, 40, HEAD_DIM])
    };
    let burns = RotaryEncodingConfig::new(64, HEAD_DIM).init(&device);
    let ours = RopeConfig::new()
        .init(HEAD_DIM)
        .forward(x.clone(), Layout::Bhsd, &[7]);
    assert_close(
        interleave(ours.clone()),
        burns.apply(interleave(x.clone()), 7),
        2e-5,
    );
    assert!(
        distance(ours, burns.apply(x, 7)) > 0.1,
        "without that they differ"
    );
}

#[test]
fn half_types_round_once() {
    let device = Device::flex();
    let rope = RopeConfig::new().init(HEAD_DIM);
    for (dtype, half_ulp) in [(DType::F16, 2f64.powi(-11)), (DType::BF16, 2f64.powi(-8))] {
        let x = normal([1, 50, 2, HEAD_DIM], 7, &device).cast(dtype);
        let out = rope.forward(x.clone(), Layout::Bshd, &[4000]);
        assert_eq!(out.dtype(), dtype);
        let exact = rope.forward(x.cast(DType::F64), Layout::Bshd, &[4000]);
        for (out, exact) in values(out).into_iter().zip(values(exact)) {
            assert!(
                (out - exact).abs() <= half_ulp * exact.abs() + 1e-6,
                "{out} {exact}"
            );
        }
    }
}

#[test]
fn gradient_turns_backwards() {
    let device = Device::flex().autodiff();
    let rope = RopeConfig::new().init(HEAD_DIM);
    let x = normal([2, 12, 3, HEAD_DIM], 8, &device).require_grad();
    let weight = normal([2, 12, 3, HEAD_DIM], 9, &device);
    let loss = (rope.forward(x.clone(), Layout::Bshd, &[0, 30]) * weight.clone()).sum();
    let gradient = x.grad(&loss.backward()).unwrap();

    let frequency = base(10_000.0);
    let expected = written_formula(
        &values(weight.inner()),
        [2, 12, 3, HEAD_DIM],
        |k| -frequency(k),
        &[0, 30],
    );
    for (gradient, expected) in values(gradient).into_iter().zip(expected) {
        assert!((gradient - expected).abs() < 1e-6);
    }
}

#[test]
fn what_is_kept_is_right() {
    let device = Device::flex();
    let shared = RopeConfig::new().init(HEAD_DIM);
    for (starts, seq) in [
        ([0, 0], 30),
        ([0, 0], 20),
        ([0, 0], 40),
        ([0, 3], 40),
        ([500, 70_000], 40),
        ([0, 0], 5),
    ] {
        for dtype in [DType::F32, DType::F64] {
            let x = normal([2, seq, 2, HEAD_DIM], 10, &device).cast(dtype);
            let fresh = RopeConfig::new().init(HEAD_DIM);
            let expected = values(fresh.forward(x.clone(), Layout::Bshd, &starts));
            // A clone computes, the original finds it there.
            for rope in [shared.clone(), shared.clone(), fresh] {
                assert_eq!(
                    values(rope.forward(x.clone(), Layout::Bshd, &starts)),
                    expected
                );
            }
        }
    }
}

#[test]
fn meaningless_parameters_are_refused() {
    let scaled = |scaling| {
        RopeConfig::new()
            .with_scaling(scaling)
            .try_init(HEAD_DIM)
            .unwrap_err()
    };
    let llama3 = |factor, low, high, context| {
        scaled(RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_positions: context,
        })
    };
    let not_positive = |field, value| ModuleConfigError::NotPositive { field, value };
    let cases = [
        (
            RopeConfig::new().try_init(15).unwrap_err(),
            ModuleConfigError::OddHeadDim { head_dim: 15 },
        ),
        (
            RopeConfig::new().try_init(0).unwrap_err(),
            ModuleConfigError::OddHeadDim { head_dim: 0 },
        ),
        (
            RopeConfig::new()
                .with_theta(0.0)
                .try_init(HEAD_DIM)
                .unwrap_err(),
            not_positive("rope.theta", 0.0),
        ),
        (
            scaled(RopeScaling::Linear { factor: -2.0 }),
            not_positive("rope.scaling.factor", -2.0),
        ),
        (
            llama3(0.0, 1.0, 4.0, 8192),
            not_positive("rope.scaling.factor", 0.0),
        ),
        (
            llama3(8.0, 0.0, 4.0, 8192),
            not_positive("rope.scaling.low_freq_factor", 0.0),
        ),
        (
            llama3(8.0, 1.0, f64::INFINITY, 8192),
            not_positive("rope.scaling.high_freq_factor", f64::INFINITY),
        ),
        (
            llama3(8.0, 4.0, 4.0, 8192),
            ModuleConfigError::FrequencyBand {
                low: 4.0,
                high: 4.0,
            },
        ),
        (
            llama3(8.0, 1.0, 4.0, 0),
            ModuleConfigError::Zero {
                field: "rope.scaling.original_max_positions",
            },
        ),
        (
            scaled(RopeScaling::PerFrequency {
                factors: vec![1.0; 7],
                amplitude: 1.0,
            }),
            ModuleConfigError::FrequencyFactors {
                len: 7,
                expected: 8,
            },
        ),
        (
            scaled(RopeScaling::PerFrequency {
                factors: vec![0.0; 8],
                amplitude: 1.0,
            }),
            not_positive("rope.scaling.factors", 0.0),
        ),
        (
            scaled(RopeScaling::PerFrequency {
                factors: vec![1.0; 8],
                amplitude: 0.0,
            }),
            not_positive("rope.scaling.amplitude", 0.0),
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(error, expected);
    }
    assert_eq!(
        panic_text(|| RopeConfig::new().init(15)),
        "head_dim = 15 cannot be rotated in pairs; use an even head_dim or no rope"
    );
}

#[test]
fn wrong_shapes_panic_with_the_numbers() {
    let rope = RopeConfig::new().init(HEAD_DIM);
    let x = |d| normal([2, 5, 3, d], 11, &Device::flex());
    assert_eq!(
        panic_text(|| rope.forward(x(32), Layout::Bshd, &[0])),
        "the last axis of x must be head_dim = 16, got 32"
    );
    assert_eq!(
        panic_text(|| rope.forward(x(16), Layout::Bshd, &[0, 1, 2])),
        "starts must have 1 entry or one per batch item (2), got 3"
    );
}
