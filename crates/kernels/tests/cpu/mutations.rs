//! Wrong results that the golden data must tell from right ones: each test computes something slightly wrong and
//! counts the files that notice.

use s2_attention_pattern::{PatternConfig, Rule};

use crate::engine::{self, Layout};
use crate::support::compare::{self, F32};
use crate::support::golden::{self, Golden};
use crate::support::{Results, Tensors};

/// What the engine computes for `golden`'s tensors under another pattern.
fn under(golden: &Golden, config: &PatternConfig) -> Results {
    engine::run::<f32>(&golden.problem_with(config), &golden.tensors, Layout::Bhsd)
}

/// Computes the mutant of every file that has one, and counts those that the bars tell apart: at least `least`. Where a
/// mutation changes nothing (a stride of 1, keys that nobody attends, one block in all) it cannot be noticed.
fn assert_caught(least: usize, mutant: impl Fn(&Golden) -> Option<Results>) {
    let mut caught = 0;
    let mut missed = Vec::new();
    for golden in golden::all() {
        let Some(results) = mutant(&golden) else {
            continue;
        };
        match compare::results(&results, &golden.results, F32) {
            Ok(()) => missed.push(golden.name),
            Err(_) => caught += 1,
        }
    }
    println!("{caught} caught, missed by {missed:?}");
    assert!(caught >= least, "{caught} caught, missed by {missed:?}");
}

/// `(local_blocks, vert_stride)` of a file with heads that differ in their stride columns.
fn heterogeneous(config: &PatternConfig) -> Option<(usize, usize)> {
    match config.rule {
        Rule::LocalStride {
            local_blocks,
            vert_stride,
        } if vert_stride > 1 && !config.homogeneous => Some((local_blocks, vert_stride)),
        _ => None,
    }
}

fn step(config: &PatternConfig, vert_stride: usize) -> i64 {
    let default = (vert_stride / config.num_heads).max(1);
    config.head_step.unwrap_or(default as i64)
}

#[test]
fn one_local_block_more() {
    assert_caught(18, |golden| {
        let (local_blocks, vert_stride) = heterogeneous(&golden.config)?;
        let rule = Rule::LocalStride {
            local_blocks: local_blocks + 1,
            vert_stride,
        };
        Some(under(
            golden,
            &PatternConfig {
                rule,
                ..golden.config.clone()
            },
        ))
    });
}

#[test]
fn one_local_block_less() {
    assert_caught(16, |golden| {
        let (local_blocks, vert_stride) = heterogeneous(&golden.config)?;
        let rule = Rule::LocalStride {
            local_blocks: local_blocks.checked_sub(1)?,
            vert_stride,
        };
        (local_blocks > 1).then(|| {
            under(
                golden,
                &PatternConfig {
                    rule,
                    ..golden.config.clone()
                },
            )
        })
    });
}

#[test]
fn an_offset_of_the_wrong_sign() {
    assert_caught(2, |golden| {
        let head_offset = -golden.config.head_offset;
        (head_offset != 0).then(|| {
            under(
                golden,
                &PatternConfig {
                    head_offset,
                    ..golden.config.clone()
                },
            )
        })
    });
}

#[test]
fn heads_that_step_the_wrong_way() {
    assert_caught(18, |golden| {
        let (_, vert_stride) = heterogeneous(&golden.config)?;
        let head_step = Some(-step(&golden.config, vert_stride));
        Some(under(
            golden,
            &PatternConfig {
                head_step,
                ..golden.config.clone()
            },
        ))
    });
}

#[test]
fn a_wrong_step() {
    assert_caught(19, |golden| {
        let (_, vert_stride) = heterogeneous(&golden.config)?;
        let head_step = Some(step(&golden.config, vert_stride) + 1);
        Some(under(
            golden,
            &PatternConfig {
                head_step,
                ..golden.config.clone()
            },
        ))
    });
}

#[test]
fn patterns_of_the_wrong_heads() {
    assert_caught(6, |golden| {
        let per_kv_head = !golden.config.per_kv_head;
        (golden.config.num_heads != golden.config.num_kv_heads).then(|| {
            under(
                golden,
                &PatternConfig {
                    per_kv_head,
                    ..golden.config.clone()
                },
            )
        })
    });
}

#[test]
fn a_dropped_tail_of_keys() {
    assert_caught(19, |golden| {
        let mut dropped = golden.clone();
        dropped.span.kv_len -= golden.shape.seq_kv % golden.config.block_size;
        (dropped.span != golden.span).then(|| under(&dropped, &golden.config))
    });
}

#[test]
fn a_dropped_tail_of_queries() {
    assert_caught(20, |golden| {
        let mut dropped = golden.clone();
        dropped.span.q_len -= golden.shape.seq_q % golden.config.block_size;
        (dropped.span != golden.span).then(|| under(&dropped, &golden.config))
    });
}

#[test]
fn lse_in_base_2() {
    // All but the file in which no query attends anything.
    assert_caught(29, |golden| {
        let mut results = under(golden, &golden.config);
        results
            .lse
            .iter_mut()
            .for_each(|lse| *lse *= std::f64::consts::LOG2_E);
        Some(results)
    });
}

#[test]
fn a_gradient_that_forgets_lse() {
    assert_caught(11, |golden| {
        golden.tensors.d_lse.as_ref()?;
        let tensors = Tensors {
            d_lse: None,
            ..golden.tensors.clone()
        };
        Some(engine::run::<f32>(
            &golden.problem(),
            &tensors,
            Layout::Bhsd,
        ))
    });
}

#[test]
fn a_gradient_of_lse_of_the_wrong_sign() {
    assert_caught(11, |golden| {
        let d_lse = golden.tensors.d_lse.as_ref()?.iter().map(|d_lse| -d_lse);
        let tensors = Tensors {
            d_lse: Some(d_lse.collect()),
            ..golden.tensors.clone()
        };
        Some(engine::run::<f32>(
            &golden.problem(),
            &tensors,
            Layout::Bhsd,
        ))
    });
}

#[test]
fn positions_off_by_one() {
    assert_caught(27, |golden| {
        let mut moved = golden.clone();
        moved.span.q_start += 1;
        let reached = moved.span.q_start + moved.span.q_len;
        // A custom mask ends with its data.
        let covered = match &golden.config.rule {
            Rule::Custom(mask) => mask.q_blocks() * golden.config.block_size,
            _ => usize::MAX,
        };
        (reached <= covered).then(|| under(&moved, &golden.config))
    });
}
