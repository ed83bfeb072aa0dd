//! Feed-forward networks against the written formulas.

use burn::module::Module;
use burn::tensor::Device;
use burn_s2_attention::module::{Mlp, MlpConfig, MlpKind, ModuleConfigError};

use super::gradients::parameters_without_gradient;
use crate::common::host::values;
use crate::common::parameters::randomize;
use crate::common::tensors::normal;

const D_MODEL: usize = 6;
const D_FF: usize = 10;

fn mlp(kind: MlpKind, device: &Device) -> Mlp {
    randomize(
        MlpConfig::new(D_MODEL)
            .with_d_ff(Some(D_FF))
            .with_kind(kind)
            .with_bias(true)
            .init(device),
        0.8,
    )
}

/// `x W + b` for one row.
fn affine(x: &[f64], linear: &burn::nn::Linear) -> Vec<f64> {
    let [rows, columns] = linear.weight.dims();
    let (weight, bias) = (
        values(linear.weight.val()),
        values(linear.bias.as_ref().unwrap().val()),
    );
    (0..columns)
        .map(|c| {
            bias[c]
                + (0..rows)
                    .map(|r| x[r] * weight[r * columns + c])
                    .sum::<f64>()
        })
        .collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x` times the normal distribution function, which is integrated numerically.
fn gelu(x: f64) -> f64 {
    let steps = 20_000;
    let width = (x + 12.0) / steps as f64;
    let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
    x * (0..steps)
        .map(|i| density(-12.0 + (i as f64 + 0.5) * width) * width)
        .sum::<f64>()
}

#[test]
fn follow_the_written_formulas() {
    let device = Device::flex();
    let x = normal([1, 5, D_MODEL], 40, &device);
    let rows = values(x.clone());
    for kind in [
        MlpKind::SwiGlu,
        MlpKind::Gelu,
        MlpKind::Gegelu { limit: 1.5 },
    ] {
        let mlp = mlp(kind, &device);
        let out = values(mlp.forward(x.clone()));
        let mut limited = [false; 3];
        for (x, out) in rows.chunks(D_MODEL).zip(out.chunks(D_MODEL)) {
            let up = affine(x, &mlp.up);
            let gate = mlp.gate.as_ref().map(|gate| affine(x, gate));
            let hidden: Vec<f64> = (0..D_FF)
                .map(|c| match kind {
                    MlpKind::SwiGlu => {
                        let g = gate.as_ref().unwrap()[c];
                        g * sigmoid(g) * up[c]
                    }
                    MlpKind::Gelu => gelu(up[c]),
                    MlpKind::Gegelu { limit } => {
                        let (g, u) = (gate.as_ref().unwrap()[c], up[c]);
                        limited = [
                            limited[0] | (g > limit),
                            limited[1] | (u > limit),
                            limited[2] | (u < -limit),
                        ];
                        let (g, u) = (g.min(limit), u.max(-limit).min(limit));
                        g * sigmoid(1.702 * g) * (u + 1.0)
                    }
                })
                .collect();
            for (out, expected) in out.iter().zip(affine(&hidden, &mlp.down)) {
                assert!(
                    (out - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
                    "{kind:?}: {out} {expected}"
                );
            }
        }
        assert!(
            limited == [true; 3] || !matches!(kind, MlpKind::Gegelu { .. }),
            "all limits must be met: {limited:?}"
        );
    }
}

#[test]
fn gradient_reaches_all_parameters() {
    let device = Device::flex().autodiff();
    for (kind, expected) in [
        (MlpKind::SwiGlu, 6),
        (MlpKind::Gelu, 4),
        (MlpKind::Gegelu { limit: 2.0 }, 6),
    ] {
        let mlp = mlp(kind, &device);
        let out = mlp.forward(normal([2, 7, D_MODEL], 41, &device));
        let gradients = (out * normal([2, 7, D_MODEL], 42, &device))
            .sum()
            .backward();
        assert_eq!(
            parameters_without_gradient(&mlp, &gradients),
            (expected, vec![])
        );
    }
}

#[test]
fn default_widths_have_about_equal_parameters() {
    let device = Device::flex();
    let params = |kind| {
        MlpConfig::new(768)
            .with_kind(kind)
            .init(&device)
            .num_params() as f64
    };
    assert_eq!(MlpKind::Gelu.default_d_ff(768), 3072);
    assert_eq!(MlpKind::SwiGlu.default_d_ff(768), 2048);
    assert_eq!(MlpKind::SwiGlu.default_d_ff(100), 320);
    assert_eq!(params(MlpKind::SwiGlu), params(MlpKind::Gelu));
}

#[test]
fn meaningless_parameters_are_refused() {
    let device = Device::flex();
    let refused = |config: MlpConfig| config.try_init(&device).unwrap_err();
    let not_positive = |field, value| ModuleConfigError::NotPositive { field, value };
    assert_eq!(
        refused(MlpConfig::new(0)),
        ModuleConfigError::Zero { field: "d_model" }
    );
    assert_eq!(
        refused(MlpConfig::new(8).with_d_ff(Some(0))),
        ModuleConfigError::Zero { field: "d_ff" }
    );
    assert_eq!(
        refused(MlpConfig::new(8).with_init_std(-1.0)),
        not_positive("init_std", -1.0)
    );
    assert_eq!(
        refused(MlpConfig::new(8).with_down_init_std(Some(0.0))),
        not_positive("down_init_std", 0.0)
    );
    assert_eq!(
        refused(MlpConfig::new(8).with_kind(MlpKind::Gegelu { limit: 0.0 })),
        not_positive("mlp.limit", 0.0)
    );
}

#[test]
fn display() {
    let mlp = MlpConfig::new(8).with_d_ff(Some(16)).init(&Device::flex());
    assert_eq!(
        mlp.to_string(),
        "Mlp {kind: SwiGlu, d_model: 8, d_ff: 16, bias: false, params: 384}"
    );
}
