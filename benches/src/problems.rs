//! The catalogue: named attention problems, in sets.
//!
//! A name says the whole problem: `b1_h8kv2_s2048_d64_f32_blk64_l4_v8` is batch 1, 8 query and 2 key/value heads, 2048
//! tokens, head dimension 64, f32, blocks of 64 tokens, a local window of 4 blocks and a vertical stride of 8.

use std::str::FromStr;

use s2_attention_pattern::{PatternConfig, PatternError, PatternReport, Rule};
use serde::Serialize;

use crate::record::{Dtype, Pass};

/// The sizes of `q [batch, heads, seq, head_dim]` and `k`, `v [batch, kv_heads, seq, head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Tokens a sequence.
    pub seq: usize,
    /// Elements of a query, key or value.
    pub head_dim: usize,
    /// Type of the elements.
    pub dtype: Dtype,
}

/// One attention problem: every query attends what the pattern keeps, keys after it masked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// The name in the catalogue.
    pub name: String,
    /// The sizes of the tensors.
    #[serde(flatten)]
    pub shape: Shape,
    /// Which blocks are attended.
    pub pattern: PatternConfig,
}

/// Block size of the dense problems, in tokens. It changes nothing about what they compute.
const DENSE_BLOCK: usize = 64;

impl Shape {
    /// The problem of local window and vertical stride; `block` in tokens, the others in blocks.
    pub fn sparse(self, block: usize, local_blocks: usize, vert_stride: usize) -> Problem {
        let pattern = PatternConfig::local_stride(local_blocks, vert_stride, block, self.heads);
        Problem {
            name: format!("{}_blk{block}_l{local_blocks}_v{vert_stride}", self.name()),
            shape: self,
            pattern: pattern.with_num_kv_heads(self.kv_heads),
        }
    }

    /// The problem of dense causal attention.
    pub fn dense(self) -> Problem {
        Problem {
            name: format!("{}_dense", self.name()),
            shape: self,
            pattern: PatternConfig::dense(DENSE_BLOCK, self.heads).with_num_kv_heads(self.kv_heads),
        }
    }

    fn name(&self) -> String {
        let Shape {
            batch,
            heads,
            kv_heads,
            seq,
            head_dim,
            dtype,
        } = self;
        let heads = if heads == kv_heads {
            heads.to_string()
        } else {
            format!("{heads}kv{kv_heads}")
        };
        format!("b{batch}_h{heads}_s{seq}_d{head_dim}_{dtype}")
    }
}

impl Problem {
    /// Whether everything is attended that causality allows.
    pub fn is_dense(&self) -> bool {
        matches!(self.pattern.rule, Rule::Dense { .. })
    }

    /// Local window and vertical stride in blocks, where the pattern has them.
    pub fn local_stride(&self) -> Option<(usize, usize)> {
        match self.pattern.rule {
            Rule::LocalStride {
                local_blocks,
                vert_stride,
            } => Some((local_blocks, vert_stride)),
            _ => None,
        }
    }

    /// What the pattern keeps at this length.
    ///
    /// # Errors
    /// A pattern that means nothing.
    pub fn report(&self) -> Result<PatternReport, PatternError> {
        PatternReport::new(&self.pattern.build()?, self.shape.seq)
    }

    /// Floating-point operations on attended pairs: `4 * pairs * head_dim` forward (two products, a multiplication and
    /// an addition each), 2.5 times that backward (five products). `None` for passes that are more than attention.
    ///
    /// # Errors
    /// A pattern that means nothing.
    pub fn useful_flops(&self, pass: Pass) -> Result<Option<f64>, PatternError> {
        let factor = match pass {
            Pass::Forward | Pass::Prefill => 1.0,
            Pass::Backward => 2.5,
            Pass::ForwardBackward => 3.5,
            Pass::Decode | Pass::TrainStep => return Ok(None),
        };
        let pairs = self.report()?.attended_pairs as f64 * self.shape.batch as f64;
        Ok(Some(factor * 4.0 * pairs * self.shape.head_dim as f64))
    }
}

/// A name that says no problem.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name:?} is no problem's name: b1_h8_s2048_d64_f32_blk64_l4_v8, b1_h8kv2_s2048_d64_bf16_dense and the like are accepted"
)]
pub struct UnreadableName {
    name: String,
}

/// From a name, in the catalogue or not.
impl FromStr for Problem {
    type Err = UnreadableName;

    fn from_str(name: &str) -> Result<Self, UnreadableName> {
        parse(name).ok_or_else(|| UnreadableName {
            name: name.to_owned(),
        })
    }
}

fn parse(name: &str) -> Option<Problem> {
    let parts: Vec<&str> = name.split('_').collect();
    let (sizes, pattern) = parts.split_at_checked(5)?;
    let number = |text: &str, prefix: &str| text.strip_prefix(prefix)?.parse::<usize>().ok();
    let (heads, kv_heads) = match sizes[1].split_once("kv") {
        Some((heads, kv_heads)) => (number(heads, "h")?, kv_heads.parse().ok()?),
        None => (number(sizes[1], "h")?, number(sizes[1], "h")?),
    };
    let shape = Shape {
        batch: number(sizes[0], "b")?,
        heads,
        kv_heads,
        seq: number(sizes[2], "s")?,
        head_dim: number(sizes[3], "d")?,
        dtype: serde_json::from_value(sizes[4].into()).ok()?,
    };
    match pattern {
        ["dense"] => Some(shape.dense()),
        [block, local, stride] => Some(shape.sparse(
            number(block, "blk")?,
            number(local, "l")?,
            number(stride, "v")?,
        )),
        _ => None,
    }
}

/// A set of problems by name.
pub struct Set {
    /// The name, as `select` takes it.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    /// The problems, each sparse one with its dense twin.
    pub problems: fn() -> Vec<Problem>,
}

/// All sets.
pub const SETS: [Set; 2] = [
    Set {
        name: "cpu",
        about: "lengths 512 to 8192, strides 2 to 16, blocks 16 to 64, d 64 and 128, grouped heads",
        problems: cpu,
    },
    Set {
        name: "quick",
        about: "a few small ones of `cpu`",
        problems: quick,
    },
];

/// What the CPU problems have in common.
const CPU: Shape = Shape {
    batch: 1,
    heads: 8,
    kv_heads: 8,
    seq: 2048,
    head_dim: 64,
    dtype: Dtype::F32,
};

fn cpu() -> Vec<Problem> {
    let mut problems = Vec::new();
    for seq in [512, 1024, 2048, 4096, 8192] {
        problems.push(Shape { seq, ..CPU }.sparse(64, 4, 8));
    }
    for vert_stride in [2, 4, 16] {
        problems.push(Shape { seq: 4096, ..CPU }.sparse(64, 4, vert_stride));
    }
    for block in [16, 32] {
        problems.push(CPU.sparse(block, 4, 8));
    }
    problems.push(
        Shape {
            head_dim: 128,
            ..CPU
        }
        .sparse(64, 4, 8),
    );
    problems.push(Shape { kv_heads: 2, ..CPU }.sparse(64, 4, 8));
    with_dense_twins(problems)
}

fn quick() -> Vec<Problem> {
    with_dense_twins(
        [512, 1024]
            .map(|seq| Shape { seq, ..CPU }.sparse(64, 4, 8))
            .to_vec(),
    )
}

/// The problems with the dense problem of each shape before its first sparse one: speed-ups are relative to it.
fn with_dense_twins(problems: Vec<Problem>) -> Vec<Problem> {
    let mut all: Vec<Problem> = Vec::new();
    for problem in problems {
        for problem in [problem.shape.dense(), problem] {
            if !all.contains(&problem) {
                all.push(problem);
            }
        }
    }
    all
}

/// A selection that names nothing.
#[derive(Debug, thiserror::Error)]
#[error("no problem is named {name:?}: give a set ({sets}) or part of a problem's name, e.g. s2048_d64", sets = set_names())]
pub struct UnknownProblem {
    name: String,
}

fn set_names() -> String {
    SETS.map(|set| set.name).join(", ")
}

/// The problems of a comma-separated list of sets and parts of problem names, with their dense twins.
///
/// # Errors
/// A part that names nothing.
pub fn select(list: &str) -> Result<Vec<Problem>, UnknownProblem> {
    let mut selected = Vec::new();
    for name in list.split(',').map(str::trim) {
        let found: Vec<Problem> = match SETS.iter().find(|set| set.name == name) {
            Some(set) => (set.problems)(),
            None => {
                let all = SETS.iter().flat_map(|set| (set.problems)());
                all.filter(|problem| !name.is_empty() && problem.name.contains(name))
                    .collect()
            }
        };
        if found.is_empty() {
            return Err(UnknownProblem {
                name: name.to_owned(),
            });
        }
        selected.extend(found);
    }
    Ok(with_dense_twins(selected))
}
