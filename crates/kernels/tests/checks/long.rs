//! Rows of many tiles, and wide heads.

use s2_attention_kernels::AttentionShape;
use s2_attention_pattern::{PatternConfig, Rule};

use super::edges::call;
use super::engine::Engine;
use super::storage::{Layout, Storage};
use super::worst::Worst;
use super::{Effort, in_types};

const SEQ: usize = 1999;

/// Long rows of three rules; the widest heads and the narrowest; in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let engine = engine.with_layout(Layout::Bshd);
    let mut worst = Worst::default();
    let mut calls = 0;
    let mut hold = |shape: AttentionShape, config: &PatternConfig| {
        let (problem, tensors) = call(shape, config, None, None, 1.5)?;
        calls += 1;
        worst
            .run(&engine, &problem, &tensors)
            .map(|_| ())
            .map_err(|miss| format!("{config:?}, {shape:?}: {miss}"))
    };
    let rules = [
        Rule::LocalStride {
            local_blocks: 4,
            vert_stride: 3,
        },
        Rule::Dense { causal: true },
        Rule::BidirectionalAbsolute {
            local_left: 3,
            local_right: 2,
            vert_stride: 4,
        },
    ];
    let (blocks, widths): (&[usize], &[[usize; 2]]) = if effort.all_kernels {
        (
            &[16, 64, 128],
            &[[256, 256], [256, 8], [8, 256], [200, 136]],
        )
    } else {
        (&[16], &[])
    };
    for rule in rules {
        for &block in blocks {
            let shape = AttentionShape {
                batch: 1,
                num_heads: 2,
                num_kv_heads: 1,
                seq_q: SEQ,
                seq_kv: SEQ,
                head_dim: 16,
                value_dim: 16,
            };
            let config = PatternConfig::new(rule.clone(), block, 2).with_num_kv_heads(1);
            hold(shape, &config)?;
        }
    }
    for &[head_dim, value_dim] in widths {
        let shape = AttentionShape {
            batch: 1,
            num_heads: 4,
            num_kv_heads: 2,
            seq_q: 150,
            seq_kv: 170,
            head_dim,
            value_dim,
        };
        let config = PatternConfig::local_stride(2, 3, 16, 4).with_num_kv_heads(2);
        hold(shape, &config)?;
    }
    Ok(format!("{calls} calls, {worst}"))
}
