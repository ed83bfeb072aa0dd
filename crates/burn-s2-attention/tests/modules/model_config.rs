//! What a transformer configuration is refused for.

use burn::tensor::Device;
use burn_s2_attention::model::HybridTransformerConfig;
use burn_s2_attention::module::{MlpKind, ModuleConfigError, RopeConfig};
use burn_s2_attention::{DenseLayers, LayerSchedule, PatternConfig, PatternError};

use crate::common::panics::panic_text;

fn schedule() -> LayerSchedule {
    LayerSchedule::new(PatternConfig::local_stride(1, 4, 16, 4))
}

fn config() -> HybridTransformerConfig {
    HybridTransformerConfig::new(50, 32, 3, 4, schedule())
}

#[track_caller]
fn assert_refused(config: HybridTransformerConfig, expected: ModuleConfigError) {
    let device = Device::flex();
    let error = config.try_init(&device).unwrap_err();
    assert_eq!(error, expected);
    assert_eq!(panic_text(|| config.init(&device)), error.to_string());
}

#[test]
fn counts() {
    let zero = |config: fn(&mut HybridTransformerConfig), field| {
        let mut changed = self::config();
        config(&mut changed);
        assert_refused(changed, ModuleConfigError::Zero { field });
    };
    zero(|config| config.vocab_size = 0, "vocab_size");
    zero(|config| config.d_model = 0, "d_model");
    zero(|config| config.num_layers = 0, "num_layers");
    zero(|config| config.num_heads = 0, "num_heads");
    zero(|config| config.num_kv_heads = Some(0), "num_kv_heads");
    zero(|config| config.head_dim = Some(0), "head_dim");
    zero(|config| config.d_ff = Some(0), "d_ff");
}

#[test]
fn numbers() {
    let refused = |config: HybridTransformerConfig, field, value| {
        assert_refused(config, ModuleConfigError::NotPositive { field, value });
    };
    refused(config().with_norm_epsilon(0.0), "norm_epsilon", 0.0);
    refused(config().with_init_std(-0.02), "init_std", -0.02);
    refused(
        config().with_embedding_multiplier(0.0),
        "embedding_multiplier",
        0.0,
    );
    refused(
        config().with_logit_multiplier(f64::INFINITY),
        "logit_multiplier",
        f64::INFINITY,
    );
    refused(config().with_attention_scale(Some(-1.0)), "scale", -1.0);
    refused(
        config().with_rope(Some(RopeConfig::new().with_theta(0.0))),
        "rope.theta",
        0.0,
    );
    refused(
        config().with_mlp(MlpKind::Gegelu { limit: -1.0 }),
        "mlp.limit",
        -1.0,
    );
    for value in [1.0, -0.1, 2.0] {
        assert_refused(
            config().with_dropout(value),
            ModuleConfigError::Dropout { value },
        );
    }
    assert_eq!(
        config()
            .with_dropout(1.0)
            .try_init(&Device::flex())
            .unwrap_err()
            .to_string(),
        "dropout is 1; it must be at least 0 and less than 1"
    );
    assert!(
        config()
            .with_dropout(f64::NAN)
            .try_init(&Device::flex())
            .is_err()
    );
}

#[test]
fn heads_and_schedules() {
    let mut narrow = config();
    narrow.d_model = 30;
    assert_refused(
        narrow,
        ModuleConfigError::ModelWidth {
            d_model: 30,
            num_heads: 4,
        },
    );
    let mut wide = config();
    wide.num_heads = 8;
    assert_refused(
        wide.with_num_kv_heads(Some(4)),
        ModuleConfigError::PatternHeads {
            heads: (8, 4),
            pattern_heads: (4, 4),
        },
    );
    assert_refused(
        config().with_num_kv_heads(Some(3)),
        ModuleConfigError::KvHeads {
            num_heads: 4,
            num_kv_heads: 3,
        },
    );
    assert_refused(
        config().with_head_dim(Some(9)),
        ModuleConfigError::OddHeadDim { head_dim: 9 },
    );

    let mut listed = config();
    listed.attention = schedule().with_dense_layers(DenseLayers::Listed(vec![3]));
    assert_refused(
        listed,
        ModuleConfigError::Pattern(PatternError::LayerOutside {
            layer: 3,
            layers: 3,
        }),
    );
    let mut strides = config();
    strides.attention = schedule().with_vert_strides(vec![1, 2]);
    assert_refused(
        strides,
        ModuleConfigError::Pattern(PatternError::LayerStrideCount {
            given: 2,
            layers: 3,
        }),
    );
}
