//! The attention layer written with plain matrix products.

use burn::nn::{Linear, RmsNorm};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, TensorData};
use burn_s2_attention::module::{QkvProjection, Rope, S2Attention};

/// The layer written with Burn's tensors: `[b, h, s, d]`, keys and values repeated, a mask of all token pairs.
pub fn plain(
    layer: &S2Attention,
    x: Tensor<3>,
    scale: f64,
    keeps: impl Fn(usize, usize, usize) -> bool,
) -> Tensor<3> {
    let [batch, seq, _] = x.dims();
    let (heads, kv_heads, d) = (layer.num_heads(), layer.num_kv_heads(), layer.head_dim());
    let project = |weight: Tensor<2>, bias: Option<Tensor<1>>, heads: usize| {
        let out = x.clone().matmul(weight.unsqueeze::<3>());
        let out = match bias {
            Some(bias) => out + bias.unsqueeze::<3>(),
            None => out,
        };
        out.reshape([batch, seq, heads, d]).swap_dims(1, 2)
    };
    let [q, k, v] = separate_weights(layer).map(|(weight, bias)| {
        let heads = weight.dims()[1] / d;
        project(weight, bias, heads)
    });
    let normalise = |x: Tensor<4>, norm: &Option<RmsNorm>| match norm {
        Some(norm) => {
            let mean_square = x.clone().powi_scalar(2).mean_dim(3) + norm.epsilon;
            x / mean_square.sqrt() * norm.gamma.val().unsqueeze::<4>()
        }
        None => x,
    };
    let rotate = |x: Tensor<4>| match layer.rope() {
        Some(rope) => rotated(x, rope),
        None => x,
    };
    let (q, k) = (
        rotate(normalise(q, &layer.q_norm)),
        rotate(normalise(k, &layer.k_norm)),
    );
    let repeat = |x: Tensor<4>| {
        let group = heads / kv_heads;
        x.unsqueeze_dim::<5>(2)
            .repeat_dim(2, group)
            .reshape([batch, heads, seq, d])
    };
    let hidden: Vec<bool> = (0..heads)
        .flat_map(|h| (0..seq).flat_map(move |i| (0..seq).map(move |j| (h, i, j))))
        .map(|(h, i, j)| j > i || !keeps(h, i, j))
        .collect();
    let hidden =
        Tensor::<4, Bool>::from_data(TensorData::new(hidden, [1, heads, seq, seq]), &x.device());
    let scores = (q.matmul(repeat(k).swap_dims(2, 3)) * scale)
        .mask_fill(hidden.expand([batch, heads, seq, seq]), f32::NEG_INFINITY);
    let attended = softmax(scores, 3)
        .matmul(repeat(v))
        .swap_dims(1, 2)
        .reshape([batch, seq, heads * d]);
    let out = attended.matmul(layer.output.weight.val().unsqueeze::<3>());
    match &layer.output.bias {
        Some(bias) => out + bias.val().unsqueeze::<3>(),
        None => out,
    }
}

/// The rotation as a matrix for each position, `[[cos, -sin], [sin, cos]]` over the halves; `x` is `[b, h, s, d]`.
fn rotated(x: Tensor<4>, rope: &Rope) -> Tensor<4> {
    let [batch, heads, seq, d] = x.dims();
    let half = d / 2;
    let mut matrices = vec![0.0; seq * d * d];
    for s in 0..seq {
        for (k, frequency) in rope.frequencies().iter().enumerate() {
            let (sin, cos) = (s as f64 * frequency).sin_cos();
            // Row vectors: x times the transpose.
            for (row, column, value) in [
                (k, k, cos),
                (k + half, k, -sin),
                (k, k + half, sin),
                (k + half, k + half, cos),
            ] {
                matrices[(s * d + row) * d + column] = value;
            }
        }
    }
    let matrices = Tensor::<4>::from_data(
        TensorData::new(matrices, [1, seq, d, d]),
        (&x.device(), x.dtype()),
    );
    let x = x.permute([0, 2, 1, 3]);
    x.matmul(matrices.expand([batch, seq, d, d]))
        .reshape([batch, seq, heads, d])
        .swap_dims(1, 2)
}

/// Weight and bias of queries, keys and values.
pub fn separate_weights(layer: &S2Attention) -> [(Tensor<2>, Option<Tensor<1>>); 3] {
    let of = |linear: &Linear| {
        (
            linear.weight.val(),
            linear.bias.as_ref().map(|bias| bias.val()),
        )
    };
    match &layer.qkv {
        QkvProjection::Separate(qkv) => [of(&qkv.query), of(&qkv.key), of(&qkv.value)],
        QkvProjection::Fused(linear) => {
            let (weight, bias) = of(linear);
            let (q, kv) = (
                layer.num_heads() * layer.head_dim(),
                layer.num_kv_heads() * layer.head_dim(),
            );
            [(0, q), (q, kv), (q + kv, kv)].map(|(start, width)| {
                (
                    weight.clone().narrow(1, start, width),
                    bias.clone().map(|bias| bias.narrow(0, start, width)),
                )
            })
        }
    }
}
