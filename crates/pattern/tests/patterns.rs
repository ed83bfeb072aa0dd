//! What patterns look like from outside: closed forms of compositions, shared schedules, text,
//! size.

use s2_attention_pattern::{Anchor, Band, BlockMask, Pattern, PatternConfig, Preset, Rule};

fn bands(rule: Rule) -> Vec<Band> {
    let pattern = PatternConfig::new(rule, 16, 1).build().unwrap();
    pattern.head(0).bands().expect("a closed form").to_vec()
}

fn strided(vert_stride: usize) -> Rule {
    Rule::Strided {
        vert_stride,
        causal: true,
    }
}

fn window(left: usize) -> Rule {
    Rule::SlidingWindow { left, right: None }
}

/// The stride, residue and distances of each band.
fn strides(rule: Rule) -> Vec<(i64, i64, i64, i64)> {
    let bands = bands(rule);
    bands
        .iter()
        .map(|band| {
            (
                band.stride,
                band.residue,
                band.min_distance,
                band.max_distance,
            )
        })
        .collect()
}

const OPEN: i64 = Band::OPEN_END;

#[test]
fn local_stride_is_two_bands_from_far_to_near() {
    let rule = Rule::LocalStride {
        local_blocks: 4,
        vert_stride: 8,
    };
    let pattern = PatternConfig::new(rule, 16, 3)
        .with_head_offset(1)
        .build()
        .unwrap();
    let bands = pattern.head(2).bands().unwrap();
    let local = Band {
        min_distance: 0,
        max_distance: 3,
        column_start: 0,
        column_end: OPEN,
        stride: 1,
        residue: 0,
        anchor: Anchor::Column,
    };
    // (j + g*step + offset) mod 8 == 0 with g = 2, step = 8 / 3 = 2, offset = 1.
    assert_eq!(
        bands,
        [
            Band {
                min_distance: 4,
                max_distance: OPEN,
                stride: 8,
                residue: 3,
                ..local
            },
            local
        ]
    );
}

#[test]
fn equal_patterns_have_equal_bands() {
    assert_eq!(
        strides(Rule::LocalStride {
            local_blocks: 3,
            vert_stride: 1
        }),
        [(1, 0, 0, OPEN)]
    );
    let as_ranges = Rule::Ranges {
        strides: vec![1, 4],
        range_blocks: vec![3],
    };
    assert_eq!(
        bands(as_ranges),
        bands(Rule::LocalStride {
            local_blocks: 3,
            vert_stride: 4
        })
    );
    assert_eq!(
        bands(window(3).union(strided(4))),
        bands(Rule::LocalStride {
            local_blocks: 3,
            vert_stride: 4
        })
    );
    let clamped = Rule::BidirectionalAbsolute {
        local_left: 3,
        local_right: 2,
        vert_stride: 4,
    }
    .causal_clamp();
    assert_eq!(
        bands(clamped),
        bands(Rule::LocalStride {
            local_blocks: 3,
            vert_stride: 4
        })
    );
}

#[test]
fn compositions_keep_a_closed_form_where_there_is_one() {
    // 0 mod 4 and 0 mod 6 meet in 0 mod 12, beside the diagonal.
    assert_eq!(
        strides(strided(4).intersection(strided(6))),
        [(12, 0, 1, OPEN), (1, 0, 0, 0)]
    );
    // 0 mod 4 holds 0 mod 8.
    assert_eq!(
        strides(strided(8).union(strided(4))),
        [(4, 0, 1, OPEN), (1, 0, 0, 0)]
    );
    // Beyond the window nothing.
    assert_eq!(
        strides(strided(4).intersection(window(5))),
        [(4, 0, 1, 4), (1, 0, 0, 0)]
    );
    // Sink columns, a window and a stride: one slab of columns for the sink, one for the rest.
    let sink = Rule::SinkWindow {
        sink_blocks: 2,
        left: 3,
        right: None,
    };
    let sink_bands = bands(sink.union(strided(4)));
    let columns: Vec<_> = sink_bands
        .iter()
        .map(|band| (band.column_start, band.column_end, band.stride))
        .collect();
    assert_eq!(columns, [(0, 2, 1), (2, OPEN, 4), (2, OPEN, 1)]);
}

#[test]
fn residues_that_add_up_to_one_stride_are_joined() {
    // Beyond distance 3 one rule keeps distances 0 mod 4, the other 2 mod 4; after the query both
    // keep 0 mod 4.
    let relative = |local_left| Rule::BidirectionalRelative {
        local_left,
        local_right: 1,
        vert_stride: 4,
    };
    let expected = [(2, 0, 3, OPEN), (1, 0, 0, 2), (4, 0, Band::OPEN_START, -1)];
    assert_eq!(strides(relative(1).union(relative(3))), expected);
}

#[test]
fn a_custom_mask_is_tabulated_by_row_and_by_column() {
    let mask = BlockMask::new([1, 2, 3], &[true, true, false, true, false, true], false).unwrap();
    let pattern = PatternConfig::new(Rule::Custom(mask.clone()), 16, 4)
        .build()
        .unwrap();
    assert_eq!(
        (pattern.schedules().len(), pattern.max_blocks()),
        (1, Some((2, 3)))
    );
    let table = pattern.head(3).table().unwrap();
    assert_eq!(
        (table.crow_indices(), table.col_indices()),
        (&[0, 2, 4][..], &[0, 1, 0, 2][..])
    );
    assert_eq!(
        (table.ccol_indices(), table.row_indices()),
        (&[0, 2, 3, 4][..], &[0, 1, 0, 1][..])
    );
    assert!(pattern.head(0).row(2, 0..3).is_empty() && pattern.head(0).column(3, 0..2).is_empty());
    let json = serde_json::to_string(&mask).unwrap();
    assert_eq!(
        json,
        r#"{"causal":false,"kv_blocks":3,"rows":[[[0,1],[0,2]]]}"#
    );
    assert_eq!(serde_json::from_str::<BlockMask>(&json).unwrap(), mask);
}

#[test]
fn a_causal_mask_drops_what_lies_after_the_query() {
    let mask = BlockMask::new([1, 2, 2], &[true; 4], true).unwrap();
    assert!(!mask.keeps(0, 0, 1) && mask.keeps(0, 1, 0));
    assert_eq!(
        mask,
        BlockMask::new([1, 2, 2], &[true, false, true, true], true).unwrap()
    );
}

#[test]
fn table_blocks_are_unused_where_there_is_a_closed_form() {
    let pattern = PatternConfig::local_stride(2, 4, 16, 2)
        .with_table_blocks(8)
        .build()
        .unwrap();
    assert_eq!(pattern.max_blocks(), None);
}

#[test]
fn heads_that_attend_the_same_share_a_schedule() {
    let distinct = |config: PatternConfig| config.build().unwrap().schedules().len();
    let config = PatternConfig::local_stride(16, 8, 64, 32).with_num_kv_heads(8);
    assert_eq!(distinct(config.clone()), 8);
    assert_eq!(distinct(config.clone().homogeneous()), 1);
    assert_eq!(
        distinct(config.clone().per_kv_head().with_dense_heads(2)),
        7
    );
    assert_eq!(distinct(config.clone().with_active_heads(4..8)), 4);
    let pattern = config.with_active_heads(8..16).build().unwrap();
    assert_eq!(
        (
            pattern.num_heads(),
            pattern.num_kv_heads(),
            pattern.group_size()
        ),
        (8, 2, 4)
    );
    assert_eq!(
        (
            pattern.heads().global_head(3),
            pattern.heads().kv_head(3),
            pattern.heads().kv_head(4)
        ),
        (11, 0, 1)
    );
}

#[test]
fn causality_and_density_are_told() {
    let pattern = |rule| PatternConfig::new(rule, 16, 2).build().unwrap();
    let dense = pattern(Rule::Dense { causal: false });
    assert!(dense.is_dense() && !dense.is_causal());
    let mixed = pattern(Rule::PerHead(vec![
        Rule::Dense { causal: true },
        Rule::Dense { causal: false },
    ]));
    assert!(mixed.is_dense() && !mixed.is_causal());
    assert!(mixed.head(0).is_causal() && !mixed.head(1).is_causal());
    assert!(!pattern(window(1000)).is_dense());
    // One block to the right is after the query for some tokens: this is not causal although j <=
    // i.
    assert!(
        !pattern(Rule::SlidingWindow {
            left: 4,
            right: Some(1)
        })
        .is_causal()
    );
}

#[test]
fn one_line_of_text() {
    let text = |config: PatternConfig| config.build().unwrap().to_string();
    let config = PatternConfig::local_stride(16, 8, 64, 32);
    assert_eq!(
        text(config.clone()),
        "local 16 + stride 8 (block 64, 32 heads, per head)"
    );
    assert_eq!(
        text(
            config
                .with_num_kv_heads(8)
                .per_kv_head()
                .with_head_offset(1)
                .with_dense_heads(1)
        ),
        "local 16 + stride 8 (block 64, 32 query / 8 KV heads, 1 dense, per KV head, head offset 1)"
    );
    let ranges = Rule::Ranges {
        strides: vec![1, 4, 8],
        range_blocks: vec![3, 9],
    };
    assert_eq!(
        text(PatternConfig::new(ranges, 16, 4).with_head_step(0)),
        "strides 1 until 3, 4 until 9, 8 beyond (block 16, 4 heads, same for all heads, head step 0)"
    );
    assert_eq!(
        format!("{:?}", Pattern::dense(16, 2).unwrap()),
        "Pattern(dense causal (block 16, 2 heads, same for all heads))"
    );
}

#[test]
fn plain_data_reads_naturally() {
    let json = serde_json::to_value(Preset::Phi3Small.config(32, 8)).unwrap();
    let expected = serde_json::json!({
        "block_size": 64, "num_heads": 32, "num_kv_heads": 8, "head_offset": 1,
        "rule": {"local_stride": {"local_blocks": 16, "vert_stride": 8}},
    });
    assert_eq!(json, expected);
}

#[test]
fn equality_and_hash_follow_the_configuration() {
    use std::collections::HashSet;
    let build = |offset| {
        PatternConfig::local_stride(2, 4, 16, 4)
            .with_head_offset(offset)
            .build()
            .unwrap()
    };
    let set: HashSet<Pattern> = [build(0), build(1), build(0), build(1).clone()].into();
    assert_eq!(set.len(), 2);
}

#[test]
fn size_does_not_depend_on_length() {
    // 64 heads, all different, for any length: 1M tokens included.
    let rules = (0..64)
        .map(|g| Rule::LocalStride {
            local_blocks: 1 + g,
            vert_stride: 2 + g,
        })
        .collect();
    for config in [
        PatternConfig::new(Rule::PerHead(rules), 64, 64),
        Preset::Hhst.config(64, 8),
        PatternConfig::new(
            Rule::Ranges {
                strides: vec![1, 4, 8, 64],
                range_blocks: vec![16, 64, 256],
            },
            64,
            64,
        ),
    ] {
        let pattern = config.build().unwrap();
        assert!(
            pattern.metadata_bytes() < 32 << 10,
            "{} bytes",
            pattern.metadata_bytes()
        );
        assert_eq!(pattern.max_blocks(), None);
    }
}

#[test]
fn the_picture_in_the_docs_is_the_pattern() {
    let pattern = Pattern::local_stride(2, 4, 64, 4).unwrap();
    let mark = |head: usize, i: usize, j: usize| match pattern.head(head).keeps(i, j) {
        true if i - j < 2 => '#',
        true => 'o',
        false if j <= i => '.',
        false => ' ',
    };
    let of_head = |head, i| (0..10).map(|j| mark(head, i, j)).collect::<String>();
    let row = |i| {
        (0..4)
            .map(|head| of_head(head, i))
            .collect::<Vec<_>>()
            .join("   ")
    };
    let docs = include_str!("../src/lib.rs");
    let shown = docs
        .lines()
        .skip_while(|line| !line.contains("head 0  "))
        .skip(1)
        .take(10);
    for (i, line) in shown.enumerate() {
        assert_eq!(line.strip_prefix("//! ").unwrap(), row(i).trim_end());
    }
}
