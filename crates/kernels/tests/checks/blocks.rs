//! Blocks that are larger than a tile, than a sequence, and than any sequence; groups whose heads read different columns.

use s2_attention_kernels::{AttentionShape, SequenceSpan};
use s2_attention_pattern::{PatternConfig, Rule};

use super::edges::call;
use super::engine::Engine;
use super::storage::Storage;
use super::worst::Worst;
use super::{Effort, in_types};

const SHAPE: AttentionShape = AttentionShape {
    batch: 2,
    num_heads: 4,
    num_kv_heads: 2,
    seq_q: 140,
    seq_kv: 190,
    head_dim: 16,
    value_dim: 16,
};

/// Both, blocks of many parts where all kernels are compiled, in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut worst = Worst::default();
    let blocks = large_blocks(engine, effort, &mut worst)?;
    let groups = groups(engine, &mut worst)?;
    Ok(format!("{blocks} large blocks, {groups} groups, {worst}"))
}

/// Tokens from within a block to within the next, and in two sequences that begin in different parts of a block.
fn large_blocks(engine: &Engine, effort: &Effort, worst: &mut Worst) -> Result<usize, String> {
    let blocks: &[usize] = if effort.all_kernels {
        &[72, 100, 128, 300, 1 << 20, (1 << 30) + 1, i32::MAX as usize]
    } else {
        &[100, 1 << 20, i32::MAX as usize]
    };
    for &block in blocks {
        let edge = block.min(1 << 29);
        let starts = [
            [50, 0],
            [edge - 70, edge.saturating_sub(90)],
            [edge + 70, edge - 30],
            [edge, edge],
        ];
        for pair in starts.chunks_exact(2) {
            let span = |&[q_start, kv_start]: &[usize; 2]| SequenceSpan {
                q_start,
                q_len: SHAPE.seq_q - 5,
                kv_start,
                kv_len: SHAPE.seq_kv - 3,
            };
            let spans = pair.iter().map(span).collect();
            let config = PatternConfig::local_stride(1, 2, block, 4).with_num_kv_heads(2);
            let (problem, tensors) = call(SHAPE, &config, None, Some(spans), 1.5)?;
            worst
                .run(engine, &problem, &tensors)
                .map_err(|miss| format!("blocks of {block}, {pair:?}: {miss}"))?;
        }
    }
    if effort.all_kernels {
        many_parts(engine, worst)?;
    }
    Ok(blocks.len())
}

/// Blocks of many tiles, of which the first queries attend few: as many visits in a row attend nothing as no ring has slots. Of heads wide
/// enough that gradients keep what they share.
fn many_parts(engine: &Engine, worst: &mut Worst) -> Result<(), String> {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 2,
        num_kv_heads: 1,
        seq_q: 1100,
        seq_kv: 1100,
        head_dim: 96,
        value_dim: 96,
    };
    for block in [512, 1024] {
        let config = PatternConfig::dense(block, 2).with_num_kv_heads(1);
        let (problem, tensors) = call(shape, &config, None, None, 1.5)?;
        worst
            .run(engine, &problem, &tensors)
            .map_err(|miss| format!("many parts of blocks of {block}: {miss}"))?;
    }
    Ok(())
}

/// Sinks beside strides, and strides that share some columns.
fn groups(engine: &Engine, worst: &mut Worst) -> Result<usize, String> {
    let stride = |local_blocks: usize, vert_stride: usize| Rule::LocalStride {
        local_blocks,
        vert_stride,
    };
    let sink = |sink_blocks: usize, right: Option<usize>| Rule::SinkWindow {
        sink_blocks,
        left: 2,
        right,
    };
    let strided = Rule::Strided {
        vert_stride: 3,
        causal: false,
    };
    let groups = [
        [sink(2, None), stride(2, 4), stride(1, 2), stride(2, 3)],
        [
            sink(1, None),
            sink(3, None),
            stride(1, 5),
            Rule::Dense { causal: true },
        ],
        [sink(2, Some(2)), strided.clone(), strided, sink(1, Some(3))],
    ];
    for rules in &groups {
        let rule = Rule::PerHead(rules.to_vec());
        let config = PatternConfig::new(rule, 16, 4).with_num_kv_heads(2);
        let (problem, tensors) = call(SHAPE, &config, None, None, 1.5)?;
        worst
            .run(engine, &problem, &tensors)
            .map_err(|miss| format!("{rules:?}: {miss}"))?;
    }
    Ok(groups.len())
}
