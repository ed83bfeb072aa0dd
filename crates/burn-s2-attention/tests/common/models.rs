//! A small transformer of each kind.

use burn::tensor::Device;
use burn_s2_attention::model::{HybridTransformer, HybridTransformerConfig};
use burn_s2_attention::module::{MlpKind, NormKind};
use burn_s2_attention::{DenseLayers, LayerSchedule, PatternConfig};

use super::parameters::randomize;

pub const VOCAB: usize = 50;

/// One dense layer, then sparse ones.
pub fn schedule() -> LayerSchedule {
    let sparse = PatternConfig::local_stride(1, 3, 8, 4).with_num_kv_heads(2);
    LayerSchedule::new(sparse).with_dense_layers(DenseLayers::First(1))
}

pub fn config() -> HybridTransformerConfig {
    HybridTransformerConfig::new(VOCAB, 32, 3, 4, schedule()).with_d_ff(Some(48))
}

/// Every choice of norm, network, biases, head, positions, projections and scales.
pub fn variants() -> [HybridTransformerConfig; 5] {
    [
        config(),
        config()
            .with_norm(NormKind::LayerNorm)
            .with_mlp(MlpKind::Gelu)
            .with_bias(true)
            .with_tied_embeddings(false),
        config()
            .with_qk_norm(true)
            .with_fused_qkv(false)
            .with_rope(None),
        config()
            .with_mlp(MlpKind::Gegelu { limit: 2.0 })
            .with_embedding_multiplier(2.0)
            .with_logit_multiplier(0.5),
        config()
            .with_attention_scale(Some(0.7))
            .with_embedding_multiplier(2.0)
            .with_logit_multiplier(0.5),
    ]
}

/// With weights far from fresh ones.
pub fn model(config: HybridTransformerConfig, device: &Device) -> HybridTransformer {
    randomize(config.init(device), 0.15)
}
