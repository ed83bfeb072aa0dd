//! Masks made by other programs: dkernel's mask builder, PyTorch from the written formulas, a
//! Phi-3-small reference.

mod common;

use common::golden::{self, Golden};
use s2_attention_pattern::{PatternConfig, Rule};
use serde_json::Value;

/// The kept blocks of the closed form and of the written rule over the mask's own extent.
fn masks(config: &PatternConfig, golden: &Golden) -> [Vec<Vec<Vec<bool>>>; 2] {
    let pattern = config.build().unwrap();
    let (q_blocks, kv_blocks) = golden.extent();
    let mask = |keeps: &dyn Fn(usize, usize, usize) -> bool| {
        let row = |h, i| (0..kv_blocks).map(|j| keeps(h, i, j)).collect();
        (0..pattern.num_heads())
            .map(|h| (0..q_blocks).map(|i| row(h, i)).collect())
            .collect()
    };
    let closed = (0..pattern.num_heads())
        .map(|h| {
            let row = |i| {
                let mut row = vec![false; kv_blocks];
                pattern
                    .head(h)
                    .row(i, 0..kv_blocks)
                    .iter()
                    .for_each(|j| row[j] = true);
                row
            };
            (0..q_blocks).map(row).collect()
        })
        .collect();
    [closed, mask(&|h, i, j| pattern.attends(h, i, j))]
}

fn agrees(config: &PatternConfig, golden: &Golden) -> bool {
    let [closed, written] = masks(config, golden);
    closed == golden.mask && written == golden.mask
}

#[test]
fn equal_to_every_golden_mask() {
    let all = golden::masks();
    assert_eq!(all.len(), 33);
    for golden in &all {
        let [closed, written] = masks(&golden.config, golden);
        assert!(closed == golden.mask, "closed form of {}", golden.source);
        assert!(written == golden.mask, "written rule of {}", golden.source);
    }
}

#[test]
fn equal_to_the_golden_lists_of_key_blocks() {
    let lists: Vec<Value> =
        serde_json::from_str(include_str!("fixtures/block_masks.json")).unwrap();
    assert_eq!(lists.len(), 18);
    for entry in &lists {
        let pattern = golden::config(&entry["config"]).build().unwrap();
        let heads: Vec<Vec<Vec<usize>>> = serde_json::from_value(entry["rows"].clone()).unwrap();
        assert_eq!(pattern.num_heads(), heads.len());
        for (h, rows) in heads.iter().enumerate() {
            for (i, row) in rows.iter().enumerate() {
                let kept: Vec<usize> = pattern.head(h).row(i, 0..rows.len()).iter().collect();
                assert_eq!(&kept, row, "{} head {h} row {i}", entry["config"]["name"]);
            }
        }
    }
}

/// One block, which every pattern keeps.
const ONE_BLOCK: &str = "attention/shorter_than_block.safetensors";
/// Two heads and stride 4: a step of 2 is a step of -2.
const STEP_HALF_A_STRIDE: &str = "attention/block64_d128.safetensors";

/// For every golden mask whose configuration `mutate` changes, whether the mask tells the mutant
/// from the original.
fn caught(mutate: impl Fn(&PatternConfig) -> Option<PatternConfig>) -> Vec<(String, bool)> {
    let mutants = golden::masks();
    let mutants = mutants
        .iter()
        .filter_map(|golden| Some((golden, mutate(&golden.config)?)));
    mutants
        .map(|(golden, config)| (golden.source.clone(), !agrees(&config, golden)))
        .collect()
}

/// `(L, V)` of a local + stride pattern whose heads differ.
fn local_stride(config: &PatternConfig) -> Option<(usize, usize)> {
    match config.rule {
        Rule::LocalStride {
            local_blocks,
            vert_stride,
        } if vert_stride > 1 && !config.homogeneous => Some((local_blocks, vert_stride)),
        _ => None,
    }
}

#[test]
fn golden_masks_catch_one_local_block_more() {
    let results = caught(|config| {
        let (local_blocks, vert_stride) = local_stride(config)?;
        Some(PatternConfig {
            rule: Rule::LocalStride {
                local_blocks: local_blocks + 1,
                vert_stride,
            },
            ..config.clone()
        })
    });
    assert_caught(results, 20, &[ONE_BLOCK]);
}

#[test]
fn golden_masks_catch_an_offset_of_the_wrong_sign() {
    let results = caught(|config| {
        local_stride(config)?;
        (config.head_offset != 0).then(|| PatternConfig {
            head_offset: -config.head_offset,
            ..config.clone()
        })
    });
    assert_caught(results, 4, &[]);
}

#[test]
fn golden_masks_catch_heads_that_step_the_wrong_way() {
    let results = caught(|config| {
        let (_, vert_stride) = local_stride(config)?;
        let step = config
            .head_step
            .unwrap_or((vert_stride / config.num_heads).max(1) as i64);
        Some(PatternConfig {
            head_step: Some(-step),
            ..config.clone()
        })
    });
    assert_caught(results, 18, &[STEP_HALF_A_STRIDE, ONE_BLOCK]);
}

#[test]
fn golden_masks_catch_a_wrong_step() {
    let results = caught(|config| {
        let (_, vert_stride) = local_stride(config)?;
        let step = config
            .head_step
            .unwrap_or((vert_stride / config.num_heads).max(1) as i64);
        Some(PatternConfig {
            head_step: Some(step + 1),
            ..config.clone()
        })
    });
    assert_caught(results, 18, &[ONE_BLOCK]);
}

#[test]
fn golden_masks_catch_the_default_step_of_the_active_heads_alone() {
    let results = caught(|config| {
        let active = config.active_heads.clone()?;
        let Rule::LocalStride { vert_stride, .. } = config.rule else {
            return None;
        };
        Some(PatternConfig {
            head_step: Some((vert_stride / active.len()) as i64),
            ..config.clone()
        })
    });
    assert_caught(results, 1, &[]);
}

#[test]
fn golden_masks_catch_a_pattern_of_the_wrong_heads() {
    let results = caught(|config| {
        local_stride(config)?;
        (config.num_heads != config.num_kv_heads).then(|| PatternConfig {
            per_kv_head: !config.per_kv_head,
            ..config.clone()
        })
    });
    assert_caught(results, 4, &[]);
}

/// At least `least` mutants were made, and all differ but those of `alike`.
fn assert_caught(results: Vec<(String, bool)>, least: usize, alike: &[&str]) {
    let missed: Vec<&str> = results
        .iter()
        .filter(|(_, caught)| !caught)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        missed, alike,
        "masks that don't tell the mutant from the original"
    );
    assert!(
        results.len() - missed.len() >= least,
        "only {} mutants were made",
        results.len()
    );
}
