//! From the command line to a pattern's configuration.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use s2_attention_pattern::{BlockMask, PatternConfig, Preset, Rule};
use serde::de::DeserializeOwned;

use crate::cli::{Cli, HeadOptions, LocalOptions, Source, WindowOptions};

const BLOCK_SIZE: usize = 64;
const HEADS: usize = 8;
/// Of the published Phi-3-small.
const PRESET_HEADS: usize = 32;
const PRESET_KV_HEADS: usize = 8;

/// The configuration that the command line asks for, unchecked.
///
/// # Errors
/// A file that cannot be read or means nothing.
pub fn config(cli: &Cli) -> Result<PatternConfig> {
    let default = Source::LocalStride {
        local_blocks: 3,
        vert_stride: 8,
    };
    let mut config = base(cli.source.as_ref().unwrap_or(&default), &cli.heads)?;
    apply(&cli.heads, &mut config);
    Ok(config)
}

/// The pattern, with as many heads as are asked for or as it comes with.
fn base(source: &Source, options: &HeadOptions) -> Result<PatternConfig> {
    let heads = options.num_heads.unwrap_or(HEADS);
    let rule = match source.clone() {
        Source::LocalStride {
            local_blocks,
            vert_stride,
        } => Rule::LocalStride {
            local_blocks,
            vert_stride,
        },
        Source::Ranges {
            strides,
            range_blocks,
        } => Rule::Ranges {
            strides,
            range_blocks,
        },
        Source::BidirectionalRelative { local } => {
            let LocalOptions {
                local_left,
                local_right,
                vert_stride,
            } = local;
            Rule::BidirectionalRelative {
                local_left,
                local_right,
                vert_stride,
            }
        }
        Source::BidirectionalAbsolute { local } => {
            let LocalOptions {
                local_left,
                local_right,
                vert_stride,
            } = local;
            Rule::BidirectionalAbsolute {
                local_left,
                local_right,
                vert_stride,
            }
        }
        Source::SlidingWindow { window } => {
            let WindowOptions { left, right } = window;
            Rule::SlidingWindow { left, right }
        }
        Source::SinkWindow {
            sink_blocks,
            window,
        } => {
            let WindowOptions { left, right } = window;
            Rule::SinkWindow {
                sink_blocks,
                left,
                right,
            }
        }
        Source::Strided {
            vert_stride,
            bidirectional,
        } => Rule::Strided {
            vert_stride,
            causal: !bidirectional,
        },
        Source::Dense { bidirectional } => Rule::Dense {
            causal: !bidirectional,
        },
        Source::Custom { mask } => {
            let mask: BlockMask = read(&mask)?;
            let heads = options.num_heads.unwrap_or(mask.heads());
            return Ok(PatternConfig::new(Rule::Custom(mask), BLOCK_SIZE, heads));
        }
        Source::Preset { name } => return Ok(preset(name, options)),
        Source::Config { file } => return read(&file),
    };
    Ok(PatternConfig::new(rule, BLOCK_SIZE, heads))
}

/// A preset's stride may depend on its heads.
fn preset(preset: Preset, options: &HeadOptions) -> PatternConfig {
    match (options.num_heads, options.num_kv_heads) {
        (None, None) => preset.config(PRESET_HEADS, PRESET_KV_HEADS),
        (None, Some(kv_heads)) => preset.config(PRESET_HEADS, kv_heads),
        (Some(heads), kv_heads) => preset.config(heads, kv_heads.unwrap_or(heads)),
    }
}

fn apply(options: &HeadOptions, config: &mut PatternConfig) {
    fn replace<T: Clone>(place: &mut T, given: &Option<T>) {
        if let Some(value) = given {
            *place = value.clone();
        }
    }
    replace(&mut config.block_size, &options.block_size);
    replace(&mut config.num_heads, &options.num_heads);
    replace(&mut config.num_kv_heads, &options.num_kv_heads);
    replace(&mut config.head_offset, &options.head_offset);
    replace(&mut config.dense_heads, &options.dense_heads);
    config.head_step = options.head_step.or(config.head_step);
    config.active_heads = options.active_heads.clone().or(config.active_heads.take());
    config.table_blocks = options.table_blocks.or(config.table_blocks);
    config.homogeneous |= options.homogeneous;
    config.per_kv_head |= options.per_kv_head;
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`{}` describes no pattern", path.display()))
}
