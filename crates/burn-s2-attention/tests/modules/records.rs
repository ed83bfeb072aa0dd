//! Saving and loading.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use burn_s2_attention::model::HybridTransformerConfig;
use burn_s2_attention::module::{MlpKind, NormKind, RopeConfig, RopeScaling};
use burn_s2_attention::{DenseLayers, LayerSchedule, PatternConfig};

use crate::common::host::values;
use crate::common::parameters::randomize;
use crate::common::tensors::{distance, tokens};

fn configs() -> Vec<HybridTransformerConfig> {
    let schedule = |dense_layers| {
        let sparse = PatternConfig::local_stride(2, 4, 8, 4)
            .with_num_kv_heads(2)
            .with_head_offset(1);
        LayerSchedule::new(sparse).with_dense_layers(dense_layers)
    };
    let config = |dense_layers| HybridTransformerConfig::new(50, 32, 3, 4, schedule(dense_layers));
    let rope = RopeConfig::new()
        .with_theta(1e6)
        .with_scaling(RopeScaling::Linear { factor: 2.0 });
    vec![
        config(DenseLayers::First(2)),
        config(DenseLayers::Every(2))
            .with_rope(Some(rope))
            .with_norm(NormKind::LayerNorm)
            .with_norm_epsilon(1e-6)
            .with_mlp(MlpKind::Gegelu { limit: 20.0 })
            .with_bias(true)
            .with_qk_norm(true)
            .with_fused_qkv(false)
            .with_tied_embeddings(false)
            .with_attention_scale(Some(0.1))
            .with_embedding_multiplier(10.0)
            .with_logit_multiplier(0.125)
            .with_d_ff(Some(40))
            .with_dropout(0.1),
    ]
}

#[test]
fn a_saved_model_gives_the_same_logits() {
    let device = Device::flex();
    for config in configs() {
        let folder = tempfile::tempdir().unwrap();
        config.save(folder.path().join("config.json")).unwrap();
        let model = randomize(config.init(&device), 0.15);
        let tokens = tokens(2, 60, 50, &device);
        let expected = model.forward(tokens.clone());
        model.save_file(folder.path().join("model")).unwrap();

        let fresh = HybridTransformerConfig::load(folder.path().join("config.json"))
            .unwrap()
            .init(&device);
        assert!(distance(fresh.forward(tokens.clone()), expected.clone()) > 0.1);
        let loaded = fresh.load_file(folder.path().join("model"));
        assert_eq!(values(loaded.forward(tokens)), values(expected));
    }
}

#[test]
fn another_shape_is_refused() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let [small, large] =
        [48, 64].map(|d_ff| configs()[0].clone().with_d_ff(Some(d_ff)).init(&device));
    small.save_file(folder.path().join("model")).unwrap();
    assert!(large.try_load_file(folder.path().join("model")).is_err());
}

#[test]
fn configurations_survive_json() {
    for config in configs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        config.save(file.path()).unwrap();
        let loaded = HybridTransformerConfig::load(file.path()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{loaded:?}"));
    }
}
