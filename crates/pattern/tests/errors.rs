//! Every meaningless parameter is refused, with the value and what is accepted.

use s2_attention_pattern::{
    BlockMask, DenseLayers, LayerSchedule, MAX_BLOCKS, MAX_HEADS, Pattern, PatternConfig,
    PatternError, PatternReport, Preset, Rule,
};

fn local_stride() -> PatternConfig {
    PatternConfig::local_stride(2, 4, 16, 8)
}

fn with_rule(rule: Rule) -> PatternConfig {
    PatternConfig::new(rule, 16, 8)
}

/// The error of building `config`, whose text must contain each of `parts`.
fn error(config: PatternConfig, parts: &[&str]) -> PatternError {
    let error = config.build().unwrap_err();
    assert_says(&error, parts);
    error
}

fn assert_says(error: &PatternError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn zeros() {
    let window = |left, right| Rule::SlidingWindow { left, right };
    let bidirectional = |local_left, local_right, vert_stride| {
        [
            Rule::BidirectionalRelative {
                local_left,
                local_right,
                vert_stride,
            },
            Rule::BidirectionalAbsolute {
                local_left,
                local_right,
                vert_stride,
            },
        ]
    };
    let mut cases = vec![
        ("block_size", PatternConfig::local_stride(2, 4, 0, 8)),
        ("num_heads", PatternConfig::local_stride(2, 4, 16, 0)),
        ("num_kv_heads", local_stride().with_num_kv_heads(0)),
        ("table_blocks", local_stride().with_table_blocks(0)),
        ("local_blocks", PatternConfig::local_stride(0, 4, 16, 8)),
        ("vert_stride", PatternConfig::local_stride(2, 0, 16, 8)),
        (
            "vert_stride",
            with_rule(Rule::Strided {
                vert_stride: 0,
                causal: true,
            }),
        ),
        (
            "strides",
            with_rule(Rule::Ranges {
                strides: vec![1, 0],
                range_blocks: vec![2],
            }),
        ),
        (
            "range_blocks",
            with_rule(Rule::Ranges {
                strides: vec![1, 2],
                range_blocks: vec![0],
            }),
        ),
        ("left", with_rule(window(0, None))),
        ("right", with_rule(window(1, Some(0)))),
        (
            "sink_blocks",
            with_rule(Rule::SinkWindow {
                sink_blocks: 0,
                left: 1,
                right: None,
            }),
        ),
        (
            "left",
            with_rule(Rule::SinkWindow {
                sink_blocks: 1,
                left: 0,
                right: None,
            }),
        ),
        ("left", with_rule(window(0, None).union(window(1, None)))),
        (
            "left",
            with_rule(window(1, None).intersection(window(0, None))),
        ),
        ("left", with_rule(window(0, Some(2)).causal_clamp())),
        ("left", with_rule(Rule::PerHead(vec![window(0, None); 8]))),
    ];
    cases.extend(bidirectional(0, 1, 1).map(|rule| ("local_left", with_rule(rule))));
    cases.extend(bidirectional(1, 0, 1).map(|rule| ("local_right", with_rule(rule))));
    cases.extend(bidirectional(1, 1, 0).map(|rule| ("vert_stride", with_rule(rule))));
    for (name, config) in cases {
        assert_eq!(
            error(config, &[name, "at least 1"]),
            PatternError::TooSmall {
                name,
                value: 0,
                min: 1
            }
        );
    }
    for (name, shape) in [
        ("heads", [0, 1, 1]),
        ("q_blocks", [1, 0, 1]),
        ("kv_blocks", [1, 1, 0]),
    ] {
        let error = BlockMask::new(shape, &[], true).unwrap_err();
        assert_eq!(
            error,
            PatternError::TooSmall {
                name,
                value: 0,
                min: 1
            }
        );
    }
}

#[test]
fn numbers_beyond_the_index_type() {
    let too_large = |name, value: i128, max| PatternError::TooLarge { name, value, max };
    let beyond = MAX_BLOCKS + 1;
    for (config, expected) in [
        (
            PatternConfig::local_stride(beyond, 4, 16, 8),
            too_large("local_blocks", beyond as i128, MAX_BLOCKS),
        ),
        (
            local_stride().with_head_offset(i64::MIN),
            too_large("head_offset", i64::MIN.into(), MAX_BLOCKS),
        ),
        (
            local_stride().with_head_step(i64::MAX),
            too_large("head_step", i64::MAX.into(), MAX_BLOCKS),
        ),
        (
            PatternConfig::local_stride(2, 4, 16, MAX_HEADS + 1),
            too_large("num_heads", MAX_HEADS as i128 + 1, MAX_HEADS),
        ),
        (
            local_stride().with_table_blocks(65_536),
            too_large("table_blocks", 65_536, 65_535),
        ),
    ] {
        assert_eq!(error(config, &["at most"]), expected);
    }
    let mask = |shape| BlockMask::from_fn(shape, true, |_, _, _| true).unwrap_err();
    assert_eq!(mask([1, 65_536, 1]), too_large("q_blocks", 65_536, 65_535));
    assert_eq!(mask([1, 1, 65_536]), too_large("kv_blocks", 65_536, 65_535));
    assert_eq!(
        mask([2, 65_535, 65_535]),
        too_large(
            "heads * q_blocks * kv_blocks",
            2 * 65_535 * 65_535,
            u32::MAX as usize
        )
    );
    let pattern = PatternConfig::dense(1, 1).build().unwrap();
    let error = PatternReport::new(&pattern, usize::MAX).unwrap_err();
    assert_eq!(
        error,
        too_large("blocks of tokens", usize::MAX as i128, MAX_BLOCKS)
    );
    assert!(
        PatternConfig::local_stride(MAX_BLOCKS, MAX_BLOCKS, MAX_BLOCKS, 8)
            .build()
            .is_ok()
    );
}

#[test]
fn heads() {
    let divide = error(local_stride().with_num_kv_heads(3), &["8", "3"]);
    assert_eq!(
        divide,
        PatternError::HeadsNotDivisible {
            num_heads: 8,
            num_kv_heads: 3
        }
    );
    let fewer = error(local_stride().with_num_kv_heads(16), &["16"]);
    assert_eq!(
        fewer,
        PatternError::HeadsNotDivisible {
            num_heads: 8,
            num_kv_heads: 16
        }
    );

    let grouped = || local_stride().with_num_kv_heads(2);
    let dense = error(
        grouped().per_kv_head().with_dense_heads(3),
        &["3", "0 to 2"],
    );
    assert_eq!(
        dense,
        PatternError::TooManyDenseHeads {
            dense_heads: 3,
            pattern_heads: 2
        }
    );

    for range in [0..0, 5..5, 0..9, 8..12] {
        let outside = error(local_stride().with_active_heads(range.clone()), &["0..8"]);
        assert_eq!(
            outside,
            PatternError::ActiveHeadsOutside {
                range,
                num_heads: 8
            }
        );
    }
    for range in [0..2, 2..4, 1..8] {
        let split = error(
            grouped().with_active_heads(range.clone()),
            &["multiples of 4"],
        );
        assert_eq!(
            split,
            PatternError::ActiveHeadsSplitGroup {
                range,
                group_size: 4
            }
        );
    }

    let step = error(
        local_stride().homogeneous().with_head_step(2),
        &["2", "step 0"],
    );
    assert_eq!(step, PatternError::HomogeneousHeadStep { head_step: 2 });
    assert!(
        local_stride()
            .homogeneous()
            .with_head_step(0)
            .build()
            .is_ok()
    );
}

#[test]
fn ranges() {
    let ranges = |strides: &[usize], range_blocks: &[usize]| {
        with_rule(Rule::Ranges {
            strides: strides.to_vec(),
            range_blocks: range_blocks.to_vec(),
        })
    };
    let count = error(
        ranges(&[1, 2], &[3, 5]),
        &["2 strides", "1 range ends", "has 2"],
    );
    assert_eq!(
        count,
        PatternError::RangeCount {
            strides: 2,
            ends: 2
        }
    );
    assert_eq!(
        error(ranges(&[], &[]), &["0 strides"]),
        PatternError::RangeCount {
            strides: 0,
            ends: 0
        }
    );
    let growing = error(
        ranges(&[1, 2, 4, 8], &[3, 5, 5]),
        &["range_blocks[2]", "greater than"],
    );
    assert_eq!(
        growing,
        PatternError::RangesNotGrowing {
            index: 2,
            previous: 5,
            value: 5
        }
    );
}

#[test]
fn per_head_lists_and_masks() {
    let dense = Rule::Dense { causal: true };
    let count = error(with_rule(Rule::PerHead(vec![dense; 7])), &["7", "8"]);
    assert_eq!(
        count,
        PatternError::PerHeadCount {
            given: 7,
            expected: 8
        }
    );

    let mask = BlockMask::from_fn([3, 2, 2], true, |_, _, _| true).unwrap();
    let heads = error(with_rule(Rule::Custom(mask)), &["3 heads", "1 or 8"]);
    assert_eq!(
        heads,
        PatternError::MaskHeads {
            given: 3,
            expected: 8
        }
    );

    let size = BlockMask::new([1, 2, 3], &[true; 5], false).unwrap_err();
    assert_says(&size, &["1 x 2 x 3", "5"]);
    assert_eq!(
        size,
        PatternError::MaskSize {
            heads: 1,
            q_blocks: 2,
            kv_blocks: 3,
            given: 5
        }
    );
}

#[test]
fn mask_data() {
    let parse = |json: &str| {
        serde_json::from_str::<BlockMask>(json)
            .unwrap_err()
            .to_string()
    };
    let ragged = parse(r#"{"causal": true, "kv_blocks": 3, "rows": [[[0], [1]], [[0]]]}"#);
    let expected = PatternError::MaskRagged {
        head: 1,
        rows: 1,
        expected: 2,
    };
    assert!(ragged.contains(&expected.to_string()), "{ragged}");
    let outside = parse(r#"{"causal": true, "kv_blocks": 3, "rows": [[[0], [1, 3]]]}"#);
    assert!(
        outside.contains("row 1 of head 0") && outside.contains("0..3"),
        "{outside}"
    );
    let unsorted = parse(r#"{"causal": true, "kv_blocks": 3, "rows": [[[0], [1, 1]]]}"#);
    assert!(
        unsorted.contains("row 1 of head 0") && unsorted.contains("ascend"),
        "{unsorted}"
    );
    let empty = parse(r#"{"causal": true, "kv_blocks": 3, "rows": []}"#);
    assert!(empty.contains("`heads` is 0"), "{empty}");
}

#[test]
fn compositions() {
    let causal = || Rule::SlidingWindow {
        left: 2,
        right: None,
    };
    let bidirectional = || Rule::SlidingWindow {
        left: 2,
        right: Some(2),
    };
    let mixed = error(
        with_rule(causal().union(bidirectional())),
        &["causal clamp"],
    );
    assert_eq!(mixed, PatternError::MixedCausality);
    assert!(
        with_rule(causal().union(bidirectional().causal_clamp()))
            .build()
            .is_ok()
    );
    assert!(
        with_rule(causal().intersection(bidirectional()))
            .build()
            .is_ok()
    );

    let strided = |vert_stride| Rule::Strided {
        vert_stride,
        causal: true,
    };
    let interleaved = with_rule(strided(3).union(strided(4)));
    let error = error(
        interleaved.clone(),
        &["head 0", "mod 3", "mod 4", "interleave", "table_blocks"],
    );
    assert!(matches!(error, PatternError::NoClosedForm { head: 0, .. }));
    let tabulated = interleaved.with_table_blocks(10).build().unwrap();
    assert_eq!(tabulated.max_blocks(), Some((10, 10)));
    let beyond = PatternReport::new(&tabulated, 161).unwrap_err();
    assert_says(&beyond, &["11 blocks", "10 query blocks"]);
    assert_eq!(
        beyond,
        PatternError::BeyondTable {
            blocks: 11,
            q_blocks: 10,
            kv_blocks: 10
        }
    );
}

#[test]
fn layers() {
    let layers = LayerSchedule::new(local_stride());
    let listed = layers
        .clone()
        .with_dense_layers(DenseLayers::Listed(vec![0, 4]));
    assert_eq!(
        listed.patterns(4).unwrap_err(),
        PatternError::LayerOutside {
            layer: 4,
            layers: 4
        }
    );
    let every = layers.clone().with_dense_layers(DenseLayers::Every(0));
    assert_eq!(
        every.patterns(4).unwrap_err(),
        PatternError::TooSmall {
            name: "dense_layers.every",
            value: 0,
            min: 1
        }
    );
    let strides = layers.with_vert_strides(vec![2, 4]);
    assert_eq!(
        strides.patterns(3).unwrap_err(),
        PatternError::LayerStrideCount {
            given: 2,
            layers: 3
        }
    );
    let window =
        LayerSchedule::new(PatternConfig::sliding_window(2, 16, 8)).with_vert_strides(vec![2]);
    let rule = window.patterns(1).unwrap_err();
    assert_says(&rule, &["local_stride", "window 2"]);
    assert_eq!(
        rule,
        PatternError::LayerStrideRule {
            rule: "window 2".into()
        }
    );
    let meaningless = LayerSchedule::new(PatternConfig::local_stride(0, 1, 16, 8));
    assert!(
        meaningless
            .with_dense_layers(DenseLayers::First(9))
            .patterns(2)
            .is_err()
    );
}

#[test]
fn presets() {
    let error = "phi4".parse::<Preset>().unwrap_err();
    assert_says(&error, &["phi4", "phi3_small, dkernel, hhst"]);
    assert!(matches!(error, PatternError::UnknownPreset { .. }));
}

#[test]
fn data_with_meaningless_or_unknown_fields() {
    let parse = |json: &str| {
        serde_json::from_str::<Pattern>(json)
            .unwrap_err()
            .to_string()
    };
    let json = r#"{"block_size": 16, "num_heads": 8, "num_kv_heads": 8,
        "rule": {"local_stride": {"local_blocks": 2, "vert_stride": 0}}}"#;
    assert!(
        parse(json).contains("`vert_stride` is 0"),
        "{}",
        parse(json)
    );
    let typo = json.replace(
        "\"num_kv_heads\": 8",
        "\"num_kv_heads\": 8, \"head_ofset\": 1",
    );
    assert!(parse(&typo).contains("head_ofset"), "{}", parse(&typo));
}
