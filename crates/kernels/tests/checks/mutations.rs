//! Wrong results that the golden data must tell from right ones: each mutation computes something slightly wrong, and
//! at least so many files must notice.

use s2_attention_pattern::{PatternConfig, Rule};

use super::engine::Engine;
use super::storage::Storage;
use super::support::compare::{self, F32};
use super::support::golden::Golden;
use super::support::{Results, Tensors};
use super::{Effort, ensure, in_types};

/// The mutant of a file, or `None` where the mutation changes nothing (a stride of 1, one block in all, ..).
type Mutant = fn(&Golden) -> Option<Wrong>;

/// What is computed in place of a file's call.
enum Wrong {
    /// Under another pattern.
    Pattern(PatternConfig),
    /// As another call.
    Call(Box<Golden>),
    /// Right, and then changed.
    Results(fn(&mut Results)),
}

/// Name, files that must notice, and the mutant. The counts are those of an engine that is right.
const MUTATIONS: [(&str, usize, Mutant); 12] = [
    ("one local block more", 18, |golden| {
        with_local_blocks(golden, |local_blocks| local_blocks + 1)
    }),
    ("one local block less", 16, |golden| {
        with_local_blocks(golden, |local_blocks| local_blocks - 1)
    }),
    ("an offset of the wrong sign", 2, |golden| {
        let head_offset = -golden.config.head_offset;
        (head_offset != 0).then(|| {
            Wrong::Pattern(PatternConfig {
                head_offset,
                ..golden.config.clone()
            })
        })
    }),
    ("heads that step the wrong way", 18, |golden| {
        with_step(golden, |step| -step)
    }),
    ("a wrong step", 19, |golden| {
        with_step(golden, |step| step + 1)
    }),
    ("patterns of the wrong heads", 6, |golden| {
        let per_kv_head = !golden.config.per_kv_head;
        (golden.config.num_heads != golden.config.num_kv_heads).then(|| {
            Wrong::Pattern(PatternConfig {
                per_kv_head,
                ..golden.config.clone()
            })
        })
    }),
    ("a dropped tail of keys", 19, |golden| {
        let mut dropped = golden.clone();
        dropped.span.kv_len -= golden.shape.seq_kv % golden.config.block_size;
        (dropped.span != golden.span).then(|| Wrong::Call(dropped.into()))
    }),
    ("a dropped tail of queries", 20, |golden| {
        let mut dropped = golden.clone();
        dropped.span.q_len -= golden.shape.seq_q % golden.config.block_size;
        (dropped.span != golden.span).then(|| Wrong::Call(dropped.into()))
    }),
    // All but the file in which no query attends anything.
    ("lse in base 2", 29, |_| {
        Some(Wrong::Results(|results| {
            let lse = results.lse.iter_mut();
            lse.for_each(|lse| *lse *= std::f64::consts::LOG2_E);
        }))
    }),
    ("D without the gradient of lse", 11, |golden| {
        with_d_lse(golden, None)
    }),
    ("D with the gradient of lse added", 11, |golden| {
        let d_lse = golden.tensors.d_lse.as_ref()?;
        with_d_lse(golden, Some(d_lse.iter().map(|d_lse| -d_lse).collect()))
    }),
    ("positions off by one", 27, |golden| {
        let mut moved = golden.clone();
        moved.span.q_start += 1;
        let reached = moved.span.q_start + moved.span.q_len;
        // A custom mask ends with its data.
        let covered = match &golden.config.rule {
            Rule::Custom(mask) => mask.q_blocks() * golden.config.block_size,
            _ => usize::MAX,
        };
        (reached <= covered).then(|| Wrong::Call(moved.into()))
    }),
];

/// Every mutation is noticed by as many files as can notice.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &[Storage::F32], of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut counts = Vec::new();
    for (name, least, mutant) in MUTATIONS {
        let (mut caught, mut missed) = (0, Vec::new());
        for golden in &effort.golden {
            let Some(wrong) = mutant(golden) else {
                continue;
            };
            let results = compute(engine, golden, wrong)?;
            match compare::results(&results, &golden.results, F32) {
                Ok(()) => missed.push(&golden.name),
                Err(_) => caught += 1,
            }
        }
        ensure(caught >= least, || {
            format!("{name}: caught by {caught} files of {least}, missed by {missed:?}")
        })?;
        counts.push(format!("{name} {caught}"));
    }
    Ok(format!("files that notice: {}", counts.join(", ")))
}

fn compute(engine: &Engine, golden: &Golden, wrong: Wrong) -> Result<Results, String> {
    match wrong {
        Wrong::Pattern(config) => engine.run(&golden.problem_with(&config), &golden.tensors),
        Wrong::Call(other) => engine.run(&other.problem(), &other.tensors),
        Wrong::Results(change) => {
            let mut results = engine.run(&golden.problem(), &golden.tensors)?;
            change(&mut results);
            Ok(results)
        }
    }
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

fn with_local_blocks(golden: &Golden, change: fn(usize) -> usize) -> Option<Wrong> {
    let (local_blocks, vert_stride) = heterogeneous(&golden.config)?;
    let local_blocks = change(local_blocks);
    let rule = Rule::LocalStride {
        local_blocks,
        vert_stride,
    };
    (local_blocks > 0).then(|| {
        Wrong::Pattern(PatternConfig {
            rule,
            ..golden.config.clone()
        })
    })
}

fn with_step(golden: &Golden, change: fn(i64) -> i64) -> Option<Wrong> {
    let (_, vert_stride) = heterogeneous(&golden.config)?;
    let default = (vert_stride / golden.config.num_heads).max(1) as i64;
    let head_step = Some(change(golden.config.head_step.unwrap_or(default)));
    Some(Wrong::Pattern(PatternConfig {
        head_step,
        ..golden.config.clone()
    }))
}

fn with_d_lse(golden: &Golden, d_lse: Option<Vec<f32>>) -> Option<Wrong> {
    golden.tensors.d_lse.as_ref()?;
    let tensors = Tensors {
        d_lse,
        ..golden.tensors.clone()
    };
    Some(Wrong::Call(Box::new(Golden {
        tensors,
        ..golden.clone()
    })))
}
