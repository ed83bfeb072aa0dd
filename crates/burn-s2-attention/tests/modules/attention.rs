//! The attention layer against plain matrix products with the same weights.

use burn::module::{Module, Param};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::{DType, Device, Tensor};
use burn_s2_attention::module::{Qkv, QkvProjection, RopeConfig, S2AttentionConfig};
use burn_s2_attention::{Layout, Pattern, PatternConfig, SequenceSpan};

use super::gradients::parameters_without_gradient;
use super::plain_attention::{plain, separate_weights};
use crate::common::cast::cast;
use crate::common::host::values;
use crate::common::parameters::randomize;
use crate::common::tensors::{assert_close, distance, normal};

const D_MODEL: usize = 64;
const SEQ: usize = 77;

fn dense(num_heads: usize, num_kv_heads: usize) -> PatternConfig {
    PatternConfig::dense(16, num_heads).with_num_kv_heads(num_kv_heads)
}

fn sparse(num_heads: usize, num_kv_heads: usize) -> PatternConfig {
    PatternConfig::local_stride(1, 3, 8, num_heads).with_num_kv_heads(num_kv_heads)
}

#[test]
fn equals_plain_causal_attention() {
    let device = Device::flex();
    let x = normal([2, SEQ, D_MODEL], 20, &device);
    for kv_heads in [4, 2, 1] {
        for fused in [true, false] {
            for (rope, qk_norm, bias) in [
                (false, false, false),
                (true, false, true),
                (true, true, false),
                (false, true, true),
            ] {
                let layer = S2AttentionConfig::new(D_MODEL, 4, dense(4, kv_heads))
                    .with_fused_qkv(fused)
                    .with_rope(rope.then(RopeConfig::new))
                    .with_qk_norm(qk_norm)
                    .with_bias(bias)
                    .init(&device);
                let layer = randomize(layer, 0.2);
                let expected = plain(&layer, x.clone(), 0.25, |_, _, _| true);
                assert_close(layer.forward(x.clone()), expected, 2e-5);
            }
        }
    }
}

#[test]
fn equals_plain_masked_attention() {
    let device = Device::flex();
    let x = normal([2, SEQ, D_MODEL], 21, &device);
    // The rule as the paper writes it: 1 local block of 8 tokens, every 3rd block, moved by one block per head.
    let keeps = |h: usize, i: usize, j: usize| i / 8 == j / 8 || (j / 8 + h).is_multiple_of(3);
    for kv_heads in [4, 2] {
        let config = S2AttentionConfig::new(D_MODEL, 4, sparse(4, kv_heads))
            .with_rope(Some(RopeConfig::new()));
        let layer = randomize(config.init(&device), 0.2);
        assert_close(
            layer.forward(x.clone()),
            plain(&layer, x.clone(), 0.25, keeps),
            2e-5,
        );
        assert!(
            distance(
                layer.forward(x.clone()),
                plain(&layer, x.clone(), 0.25, |_, _, _| true)
            ) > 0.05
        );
    }
}

#[test]
fn head_dim_and_scale_are_free() {
    let device = Device::flex();
    let x = normal([1, SEQ, D_MODEL], 22, &device);
    let config = S2AttentionConfig::new(D_MODEL, 4, dense(4, 2))
        .with_head_dim(Some(24))
        .with_scale(Some(0.5));
    let layer = randomize(config.init(&device), 0.2);
    assert_eq!(
        (layer.head_dim(), layer.d_model(), layer.num_kv_heads()),
        (24, D_MODEL, 2)
    );
    assert_close(
        layer.forward(x.clone()),
        plain(&layer, x.clone(), 0.5, |_, _, _| true),
        2e-5,
    );
    assert!(
        distance(
            layer.forward(x.clone()),
            plain(&layer, x, 24f64.powf(-0.5), |_, _, _| true)
        ) > 0.01
    );
}

#[test]
fn fused_and_separate_projections_agree() {
    let device = Device::flex();
    let config = S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2))
        .with_bias(true)
        .with_rope(Some(RopeConfig::new()));
    let fused = randomize(config.init(&device), 0.2);
    let mut separate = config.with_fused_qkv(false).init(&device);
    let [query, key, value] = separate_weights(&fused).map(|(weight, bias)| Linear {
        weight: Param::from_tensor(weight),
        bias: bias.map(Param::from_tensor),
    });
    separate.output = fused.output.clone();
    let QkvProjection::Separate(qkv) = &mut separate.qkv else {
        panic!("asked for separate projections")
    };
    (qkv.query, qkv.key, qkv.value) = (query, key, value);

    assert_eq!(fused.num_params(), separate.num_params());
    let x = normal([2, SEQ, D_MODEL], 23, &device);
    assert_close(fused.forward(x.clone()), separate.forward(x), 2e-6);
}

#[test]
fn gradient_reaches_all_parameters() {
    let device = Device::flex().autodiff();
    for fused in [true, false] {
        let config = S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2))
            .with_fused_qkv(fused)
            .with_rope(Some(RopeConfig::new()))
            .with_qk_norm(true)
            .with_bias(true);
        let layer = randomize(config.init(&device), 0.2);
        let x = normal([2, SEQ, D_MODEL], 24, &device).require_grad();
        let weight = normal([2, SEQ, D_MODEL], 25, &device);
        let gradients = (layer.forward(x.clone()) * weight).sum().backward();
        let expected = if fused { 6 } else { 10 };
        assert_eq!(
            parameters_without_gradient(&layer, &gradients),
            (expected, vec![])
        );
        assert!(
            values(x.grad(&gradients).unwrap())
                .iter()
                .all(|g| g.is_finite() && *g != 0.0)
        );
    }
}

#[test]
fn gradients_equal_those_of_plain_attention() {
    let device = Device::flex().autodiff();
    let keeps = |h: usize, i: usize, j: usize| i / 8 == j / 8 || (j / 8 + h).is_multiple_of(3);
    let config = S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2))
        .with_rope(Some(RopeConfig::new()))
        .with_qk_norm(true);
    let layer = randomize(config.init(&device), 0.2);
    let weight = normal([2, SEQ, D_MODEL], 26, &device);
    let gradients_of = |forward: &dyn Fn(Tensor<3>) -> Tensor<3>| {
        let x = normal([2, SEQ, D_MODEL], 27, &device).require_grad();
        let gradients = (forward(x.clone()) * weight.clone()).sum().backward();
        let QkvProjection::Fused(qkv) = &layer.qkv else {
            panic!("fused by default")
        };
        let norm =
            |norm: &Option<RmsNorm>| norm.as_ref().unwrap().gamma.val().grad(&gradients).unwrap();
        let matrices = [qkv.weight.val(), layer.output.weight.val()]
            .map(|weight| weight.grad(&gradients).unwrap());
        (
            x.grad(&gradients).unwrap(),
            matrices,
            [norm(&layer.q_norm), norm(&layer.k_norm)],
        )
    };
    let (x, matrices, norms) = gradients_of(&|x| layer.forward(x));
    let (x_plain, matrices_plain, norms_plain) = gradients_of(&|x| plain(&layer, x, 0.25, keeps));
    assert_close(x, x_plain, 1e-4);
    matrices
        .into_iter()
        .zip(matrices_plain)
        .for_each(|(a, b)| assert_close(a, b, 1e-4));
    norms
        .into_iter()
        .zip(norms_plain)
        .for_each(|(a, b)| assert_close(a, b, 1e-4));
}

#[test]
fn later_tokens_do_not_reach_back() {
    let device = Device::flex();
    let layer = S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2)).with_rope(Some(RopeConfig::new()));
    let layer = randomize(layer.init(&device), 0.2);
    let x = normal([1, SEQ, D_MODEL], 28, &device);
    let changed = Tensor::cat(
        vec![
            x.clone().narrow(1, 0, 50),
            normal([1, SEQ - 50, D_MODEL], 29, &device),
        ],
        1,
    );
    let (out, out_changed) = (layer.forward(x), layer.forward(changed));
    let before = |out: &Tensor<3>| values(out.clone().narrow(1, 0, 50));
    assert_eq!(before(&out), before(&out_changed));
    assert!(
        distance(
            out.narrow(1, 50, SEQ - 50),
            out_changed.narrow(1, 50, SEQ - 50)
        ) > 0.1
    );
}

/// Keys and values of a prefix may be kept: the last queries against all keys give the last rows of the whole.
#[test]
fn parts_can_be_attended_from_kept_keys() {
    let device = Device::flex();
    let config = S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2))
        .with_rope(Some(RopeConfig::new()))
        .with_qk_norm(true);
    let layer = randomize(config.init(&device), 0.2);
    let x = normal([2, SEQ, D_MODEL], 30, &device);
    let whole = layer.forward(x.clone());

    for past in [1, 40, SEQ - 1] {
        let kept = layer.rotate(layer.project(x.clone().narrow(1, 0, past)), &[0]);
        let new = layer.rotate(
            layer.project(x.clone().narrow(1, past, SEQ - past)),
            &[past],
        );
        let join = |kept: Tensor<4>, new: Tensor<4>| Tensor::cat(vec![kept, new], 1);
        let qkv = Qkv {
            q: new.q,
            k: join(kept.k, new.k),
            v: join(kept.v, new.v),
        };
        let out = layer.project_output(layer.attend(qkv, None));
        assert_close(out, whole.clone().narrow(1, past, SEQ - past), 1e-5);
    }
}

#[test]
fn starts_move_the_blocks() {
    let device = Device::flex();
    let config =
        S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2)).with_rope(Some(RopeConfig::new()));
    let layer = randomize(config.init(&device), 0.2);
    let x = normal([2, SEQ, D_MODEL], 31, &device);
    // The rule over absolute positions.
    let keeps_from = |start: usize| {
        move |h: usize, i: usize, j: usize| {
            let (i, j) = ((start + i) / 8, (start + j) / 8);
            i == j || (j + h).is_multiple_of(3)
        }
    };
    let out = layer.forward_from(x.clone(), &[0, 13]);
    for (item, start) in [(0, 0), (1, 13)] {
        let x = x.clone().narrow(0, item, 1);
        let expected = plain(&layer, x.clone(), 0.25, keeps_from(start));
        assert_close(out.clone().narrow(0, item, 1), expected.clone(), 2e-5);
        assert_close(layer.forward_from(x, &[start]), expected, 2e-5);
    }
}

#[test]
fn spans_reach_the_operation() {
    let device = Device::flex();
    let layer = randomize(
        S2AttentionConfig::new(D_MODEL, 4, dense(4, 4)).init(&device),
        0.2,
    );
    let x = normal([1, 20, D_MODEL], 32, &device);
    let qkv = layer.rotate(layer.project(x), &[0]);
    let span = SequenceSpan {
        q_start: 10,
        q_len: 20,
        kv_start: 30,
        kv_len: 20,
    };
    let out = values(layer.attend(qkv, Some(vec![span])));
    assert!(
        out.iter().all(|&value| value == 0.0),
        "all keys lie after all queries"
    );
}

/// The error may not be greater than that of the plain computation in the same type.
#[test]
fn half_types_are_no_worse_than_plain() {
    let device = Device::flex();
    let keeps = |h: usize, i: usize, j: usize| i / 8 == j / 8 || (j / 8 + h).is_multiple_of(3);
    let config = S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2))
        .with_rope(Some(RopeConfig::new()))
        .with_qk_norm(true);
    let layer = randomize(config.init(&device), 0.2);
    let x = normal([1, SEQ, D_MODEL], 33, &device);
    for dtype in [DType::F16, DType::BF16] {
        let (layer, x) = (cast(layer.clone(), dtype), x.clone().cast(dtype));
        let rounded = cast(layer.clone(), DType::F64);
        let exact = plain(&rounded, x.clone().cast(DType::F64), 0.25, keeps);
        let error = |out: Tensor<3>| {
            assert_eq!(out.dtype(), dtype);
            values(
                (out.cast(DType::F64) - exact.clone())
                    .square()
                    .mean()
                    .sqrt(),
            )[0]
        };
        let ours = error(layer.forward(x.clone()));
        let plain = error(plain(&layer, x, 0.25, keeps));
        assert!(ours > 0.0 && ours <= plain, "{dtype:?}: {ours:e} {plain:e}");
    }
}

#[test]
fn display_tells_the_pattern() {
    let config =
        S2AttentionConfig::new(D_MODEL, 4, sparse(4, 2)).with_rope(Some(RopeConfig::new()));
    let layer = config.init(&Device::flex());
    let pattern: Pattern = sparse(4, 2).build().unwrap();
    assert_eq!(
        layer.to_string(),
        format!(
            "S2Attention {{d_model: 64, num_heads: 4, num_kv_heads: 2, head_dim: 16, rope: true, qk_norm: false, bias: false, \
             pattern: {pattern}, params: 12288}}"
        )
    );
    assert_eq!(
        layer
            .rope()
            .unwrap()
            .forward(
                normal([1, 1, 1, 16], 1, &Device::flex()),
                Layout::Bshd,
                &[0]
            )
            .dims(),
        [1, 1, 1, 16]
    );
}
