//! What an attention configuration is refused for.

use burn::config::Config;
use burn::tensor::Device;
use burn_s2_attention::module::{ModuleConfigError, RopeConfig, RopeScaling, S2AttentionConfig};
use burn_s2_attention::{PatternConfig, PatternError};

use crate::common::panics::panic_text;

fn pattern(num_heads: usize, num_kv_heads: usize) -> PatternConfig {
    PatternConfig::local_stride(2, 4, 16, num_heads).with_num_kv_heads(num_kv_heads)
}

fn config() -> S2AttentionConfig {
    S2AttentionConfig::new(64, 4, pattern(4, 2))
}

#[track_caller]
fn assert_refused(config: S2AttentionConfig, expected: ModuleConfigError, text: &str) {
    let device = Device::flex();
    let error = config.try_init(&device).unwrap_err();
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), text);
    assert_eq!(panic_text(|| config.init(&device)), text);
}

#[test]
fn widths_and_heads() {
    assert_refused(
        S2AttentionConfig::new(66, 4, pattern(4, 2)),
        ModuleConfigError::ModelWidth {
            d_model: 66,
            num_heads: 4,
        },
        "d_model = 66 is not divisible by num_heads = 4; change one of them or set head_dim",
    );
    assert_refused(
        S2AttentionConfig::new(0, 4, pattern(4, 2)),
        ModuleConfigError::Zero { field: "d_model" },
        "d_model is 0; it must be at least 1",
    );
    assert_refused(
        S2AttentionConfig::new(64, 0, pattern(4, 2)),
        ModuleConfigError::Zero { field: "num_heads" },
        "num_heads is 0; it must be at least 1",
    );
    assert_refused(
        config().with_num_kv_heads(Some(0)),
        ModuleConfigError::Zero {
            field: "num_kv_heads",
        },
        "num_kv_heads is 0; it must be at least 1",
    );
    assert_refused(
        config().with_num_kv_heads(Some(3)),
        ModuleConfigError::KvHeads {
            num_heads: 4,
            num_kv_heads: 3,
        },
        "num_heads = 4 is not divisible by num_kv_heads = 3; num_kv_heads must divide num_heads",
    );
    assert_refused(
        config().with_head_dim(Some(0)),
        ModuleConfigError::Zero { field: "head_dim" },
        "head_dim is 0; it must be at least 1",
    );
    assert_refused(
        config()
            .with_head_dim(Some(17))
            .with_rope(Some(RopeConfig::new())),
        ModuleConfigError::OddHeadDim { head_dim: 17 },
        "head_dim = 17 cannot be rotated in pairs; use an even head_dim or no rope",
    );
    // Rope is what needs an even number.
    assert!(
        config()
            .with_head_dim(Some(17))
            .try_init(&Device::flex())
            .is_ok()
    );
}

#[test]
fn patterns() {
    let text = "the pattern has 8 query and 2 key/value heads, the attention has num_heads = 4 and num_kv_heads = 2; they must be equal";
    assert_refused(
        S2AttentionConfig::new(64, 4, pattern(8, 2)),
        ModuleConfigError::PatternHeads {
            heads: (4, 2),
            pattern_heads: (8, 2),
        },
        text,
    );
    let text = "the pattern has 4 query and 2 key/value heads, the attention has num_heads = 4 and num_kv_heads = 1; they must be equal";
    assert_refused(
        config().with_num_kv_heads(Some(1)),
        ModuleConfigError::PatternHeads {
            heads: (4, 1),
            pattern_heads: (4, 2),
        },
        text,
    );
    let error = PatternError::TooSmall {
        name: "vert_stride",
        value: 0,
        min: 1,
    };
    let text = error.to_string();
    let zero_stride = PatternConfig::local_stride(2, 0, 16, 4);
    assert_refused(
        S2AttentionConfig::new(64, 4, zero_stride),
        ModuleConfigError::Pattern(error),
        &text,
    );
}

/// A slice of the heads of a larger model is a module of so many heads.
#[test]
fn active_heads_count() {
    let slice = pattern(8, 4).with_active_heads(4..8);
    let layer = S2AttentionConfig::new(64, 4, slice).init(&Device::flex());
    assert_eq!((layer.num_heads(), layer.num_kv_heads()), (4, 2));
}

#[test]
fn numbers() {
    let not_positive = |config: S2AttentionConfig, field, value: f64| {
        let text = format!("{field} is {value}; it must be a positive finite number");
        assert_refused(
            config,
            ModuleConfigError::NotPositive { field, value },
            &text,
        );
    };
    not_positive(config().with_scale(Some(0.0)), "scale", 0.0);
    not_positive(
        config().with_scale(Some(f64::INFINITY)),
        "scale",
        f64::INFINITY,
    );
    not_positive(config().with_norm_epsilon(-1.0), "norm_epsilon", -1.0);
    not_positive(config().with_init_std(0.0), "init_std", 0.0);
    not_positive(
        config().with_output_init_std(Some(-0.1)),
        "output_init_std",
        -0.1,
    );
    not_positive(
        config().with_rope(Some(RopeConfig::new().with_theta(-1.0))),
        "rope.theta",
        -1.0,
    );
}

#[test]
fn survives_json() {
    let config = config()
        .with_num_kv_heads(Some(2))
        .with_head_dim(Some(32))
        .with_scale(Some(0.1))
        .with_qk_norm(true)
        .with_rope(Some(RopeConfig::new().with_scaling(
            RopeScaling::PerFrequency {
                factors: vec![1.0; 16],
                amplitude: 1.2,
            },
        )));
    let file = tempfile::NamedTempFile::new().unwrap();
    config.save(file.path()).unwrap();
    let loaded = S2AttentionConfig::load(file.path()).unwrap();
    assert_eq!(format!("{config:?}"), format!("{loaded:?}"));
}
