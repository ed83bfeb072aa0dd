//! Projection of the residual stream to queries, keys and values.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use super::S2AttentionConfig;
use super::init::linear;
use super::layers;

/// Queries, keys and values in the `[batch, seq, heads, head_dim]` layout, which the projections give without a copy.
#[derive(Clone, Debug)]
pub struct Qkv {
    /// Queries, `[batch, seq, num_heads, head_dim]`.
    pub q: Tensor<4>,
    /// Keys, `[batch, seq, num_kv_heads, head_dim]`.
    pub k: Tensor<4>,
    /// Values, `[batch, seq, num_kv_heads, head_dim]`.
    pub v: Tensor<4>,
}

/// The input projections of an attention layer.
#[derive(Module, Debug)]
// `Box` is no module in Burn, and there is one projection per layer: the size is no cost.
#[allow(clippy::large_enum_variant)]
pub enum QkvProjection {
    /// One matrix `[d_model, (num_heads + 2 * num_kv_heads) * head_dim]`: the columns of all query heads, then of all key heads,
    /// then of all value heads.
    Fused(Linear),
    /// Three matrices.
    Separate(SeparateQkv),
}

/// One matrix each for queries, keys and values.
#[derive(Module, Debug)]
pub struct SeparateQkv {
    /// `[d_model, num_heads * head_dim]`.
    pub query: Linear,
    /// `[d_model, num_kv_heads * head_dim]`.
    pub key: Linear,
    /// `[d_model, num_kv_heads * head_dim]`.
    pub value: Linear,
}

impl QkvProjection {
    pub(super) fn new(
        config: &S2AttentionConfig,
        q_width: usize,
        kv_width: usize,
        device: &Device,
    ) -> Self {
        let linear = |width| linear(config.d_model, width, config.bias, config.init_std, device);
        if config.fused_qkv {
            Self::Fused(linear(q_width + 2 * kv_width))
        } else {
            Self::Separate(SeparateQkv {
                query: linear(q_width),
                key: linear(kv_width),
                value: linear(kv_width),
            })
        }
    }

    /// Projects and splits into heads.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, d_model]`
    /// - output: see [`Qkv`]
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        num_heads: usize,
        num_kv_heads: usize,
        head_dim: usize,
    ) -> Qkv {
        let [batch, seq, _] = x.dims();
        let split = |x: Tensor<3>, heads: usize| x.reshape([batch, seq, heads, head_dim]);
        match self {
            Self::Fused(linear) => {
                let heads = split(layers::linear(linear, x), num_heads + 2 * num_kv_heads);
                Qkv {
                    q: heads.clone().narrow(2, 0, num_heads),
                    k: heads.clone().narrow(2, num_heads, num_kv_heads),
                    v: heads.narrow(2, num_heads + num_kv_heads, num_kv_heads),
                }
            }
            Self::Separate(SeparateQkv { query, key, value }) => Qkv {
                q: split(layers::linear(query, x.clone()), num_heads),
                k: split(layers::linear(key, x.clone()), num_kv_heads),
                v: split(layers::linear(value, x), num_kv_heads),
            },
        }
    }
}
