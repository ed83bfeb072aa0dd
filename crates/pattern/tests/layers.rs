//! Presets, and the patterns of a model's layers.

use s2_attention_pattern::{DenseLayers, LayerSchedule, Pattern, PatternConfig, Preset, Rule};
use serde_json::Value;

#[test]
fn presets_are_what_their_projects_publish() {
    let phi3 = Preset::Phi3Small.config(32, 8);
    assert_eq!(
        phi3,
        PatternConfig::local_stride(16, 8, 64, 32)
            .with_num_kv_heads(8)
            .with_head_offset(1)
    );
    assert_eq!(
        Preset::Phi3Small.layers(32, 8).dense_layers,
        DenseLayers::Every(2)
    );
    assert_eq!(
        Preset::Dkernel.config(4, 4),
        PatternConfig::local_stride(4, 4, 64, 4)
    );
    let hhst = Preset::Hhst.config(12, 4).build().unwrap();
    assert_eq!(hhst.schedules().len(), 12, "a stride column for each head");
    for preset in Preset::ALL {
        assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        assert_eq!(serde_json::to_value(preset).unwrap(), preset.name());
    }
}

#[test]
fn the_head_rule_of_the_preset_gives_the_masks_of_phi3_small() {
    // The masks themselves are compared in `golden.rs`, through `Preset::Phi3Small`.
    let entries: Vec<Value> = serde_json::from_str(include_str!("fixtures/masks.json")).unwrap();
    let phi3: Vec<_> = entries
        .iter()
        .filter(|entry| entry["config"]["kind"] == "phi3_small")
        .collect();
    assert_eq!(phi3.len(), 3);
    // Layer l is dense when (l + 1) mod n == 0.
    let every = phi3[2]["config"]["dense_every"].as_u64().unwrap() as usize;
    let layers = LayerSchedule::new(PatternConfig::local_stride(2, 9, 16, 4))
        .with_dense_layers(DenseLayers::Every(every));
    let dense: Vec<bool> = layers
        .patterns(4)
        .unwrap()
        .iter()
        .map(Pattern::is_dense)
        .collect();
    assert_eq!(dense, [false, false, true, false]);
}

#[test]
fn layers_differ_as_told() {
    let layers = LayerSchedule::new(PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2));
    let dense = |dense_layers| -> Vec<bool> {
        let patterns = layers
            .clone()
            .with_dense_layers(dense_layers)
            .patterns(5)
            .unwrap();
        patterns.iter().map(Pattern::is_dense).collect()
    };
    assert_eq!(dense(DenseLayers::None), [false; 5]);
    assert_eq!(
        dense(DenseLayers::First(2)),
        [true, true, false, false, false]
    );
    assert_eq!(dense(DenseLayers::First(9)), [true; 5]);
    assert_eq!(
        dense(DenseLayers::Every(2)),
        [false, true, false, true, false]
    );
    assert_eq!(
        dense(DenseLayers::Listed(vec![4, 1])),
        [false, true, false, false, true]
    );

    let strided = layers
        .with_vert_strides(vec![2, 8, 8, 1, 4])
        .with_dense_layers(DenseLayers::First(1));
    let patterns = strided.patterns(5).unwrap();
    assert_eq!(
        patterns[0].config(),
        &PatternConfig::dense(16, 4).with_num_kv_heads(2)
    );
    assert_eq!(
        patterns[1].config(),
        &PatternConfig::local_stride(2, 8, 16, 4).with_num_kv_heads(2)
    );
    assert_eq!(patterns[1], patterns[2]);
    assert!(patterns[3].is_dense(), "stride 1");
    let json = serde_json::to_string(&strided).unwrap();
    assert_eq!(
        serde_json::from_str::<LayerSchedule>(&json).unwrap(),
        strided
    );
}

#[test]
fn a_dense_layer_keeps_the_causality_of_each_head() {
    let rule = Rule::PerHead(vec![
        Rule::SlidingWindow {
            left: 2,
            right: None,
        },
        Rule::SlidingWindow {
            left: 2,
            right: Some(2),
        },
    ]);
    let layers = LayerSchedule::new(PatternConfig::new(rule, 16, 2))
        .with_dense_layers(DenseLayers::First(1));
    let pattern = &layers.patterns(2).unwrap()[0];
    assert!(pattern.is_dense() && pattern.head(0).is_causal() && !pattern.head(1).is_causal());
}
