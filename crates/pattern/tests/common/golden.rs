//! The golden masks and the configurations that they were made from.

use s2_attention_pattern::{BlockMask, PatternConfig, Preset, Rule};
use serde_json::Value;

/// A golden mask `[head][i][j]` and the configuration that must reproduce it.
pub struct Golden {
    pub source: String,
    pub config: PatternConfig,
    pub mask: Vec<Vec<Vec<bool>>>,
}

impl Golden {
    /// Query and key blocks.
    pub fn extent(&self) -> (usize, usize) {
        (self.mask[0].len(), self.mask[0][0].len())
    }
}

pub fn masks() -> Vec<Golden> {
    let entries: Vec<Value> = serde_json::from_str(include_str!("../fixtures/masks.json")).unwrap();
    entries.iter().map(golden).collect()
}

fn golden(entry: &Value) -> Golden {
    let rows: Vec<Vec<String>> = serde_json::from_value(entry["mask"].clone()).unwrap();
    let bits = |row: &String| row.bytes().map(|bit| bit == b'1').collect();
    let mask: Vec<Vec<Vec<bool>>> = rows
        .iter()
        .map(|rows| rows.iter().map(bits).collect())
        .collect();
    let config = match &entry["config"]["kind"] {
        kind if kind == "custom" => {
            let shape = [mask.len(), mask[0].len(), mask[0][0].len()];
            let causal = entry["config"]["causal"].as_bool().unwrap();
            let mask = BlockMask::from_fn(shape, causal, |h, i, j| mask[h][i][j]).unwrap();
            PatternConfig {
                rule: Rule::Custom(mask),
                ..config(&entry["config"])
            }
        }
        _ => config(&entry["config"]),
    };
    Golden {
        source: entry["source"].as_str().unwrap().to_owned(),
        config,
        mask,
    }
}

/// The parameters of a golden mask, in the spelling of its file.
pub fn config(golden: &Value) -> PatternConfig {
    let number = |key: &str| golden[key].as_u64().map(|number| number as usize);
    let list = |key: &str| serde_json::from_value::<Vec<usize>>(golden[key].clone()).unwrap();
    let flag = |key: &str| golden[key].as_bool().unwrap_or(false);
    let local_blocks = number("local_blocks").unwrap();
    let vert_stride = number("vert_stride").unwrap();
    let local_left = number("local_left").unwrap_or(local_blocks);
    let local_right = number("local_right").unwrap_or(local_blocks);
    let rule = match golden["kind"].as_str().unwrap() {
        "local_stride" if flag("causal") => Rule::LocalStride {
            local_blocks,
            vert_stride,
        },
        "local_stride" | "bidirectional_relative" => Rule::BidirectionalRelative {
            local_left,
            local_right,
            vert_stride,
        },
        "bidirectional_absolute" => Rule::BidirectionalAbsolute {
            local_left,
            local_right,
            vert_stride,
        },
        "ranges" => Rule::Ranges {
            strides: list("strides"),
            range_blocks: list("range_blocks"),
        },
        "phi3_small" => Rule::LocalStride {
            local_blocks,
            vert_stride,
        },
        "custom" => Rule::Dense { causal: true }, // replaced by the mask itself
        kind => panic!("unknown kind {kind}"),
    };
    let num_heads = number("heads_total").or(number("q_heads")).unwrap();
    let num_kv_heads = number("kv_heads_total").or(number("kv_heads")).unwrap();
    let mut config = PatternConfig::new(rule, number("block").unwrap(), num_heads)
        .with_num_kv_heads(num_kv_heads);
    if golden["kind"] == "phi3_small" {
        // Block, window and stride are the tiny checkpoint's; the head rule must be the preset's.
        let preset = Preset::Phi3Small.config(num_heads, num_kv_heads);
        config = PatternConfig {
            rule: config.rule,
            block_size: config.block_size,
            ..preset
        };
    }
    config.head_step = golden["head_step"].as_i64();
    config.head_offset = golden["head_offset"].as_i64().unwrap_or(config.head_offset);
    config.homogeneous = flag("homo");
    config.dense_heads = number("dense_heads").unwrap_or(0);
    config.per_kv_head = golden["pattern_heads"] == "kv";
    config.active_heads = golden["active_heads"]
        .is_array()
        .then(|| list("active_heads")[0]..list("active_heads")[1]);
    config
}
