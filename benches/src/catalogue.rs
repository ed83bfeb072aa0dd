//! The catalogue: problems in sets, and the choice among them.

use crate::problems::{Problem, Shape};
use crate::record::Dtype;

/// A set of problems by name.
pub struct Set {
    /// The name, as [`select`] takes it.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    /// The problems, each sparse one with its dense twin.
    pub problems: fn() -> Vec<Problem>,
}

/// All sets.
pub const SETS: [Set; 13] = [
    Set {
        name: "cpu",
        about: "f32 on CPUs: lengths 512 to 8192, strides 2 to 16, blocks 16 to 64, d 64 and 128, grouped heads",
        problems: || with_dense_twins(cpu()),
    },
    Set {
        name: "quick",
        about: "a few small ones of `cpu`",
        problems: || with_dense_twins([512, 1024].map(|seq| CPU.at(seq).sparse(64, 4, 8)).into()),
    },
    Set {
        name: "gpu",
        about: "all sets below: bf16 but for `f32`, batch 1 but for `batch`, d 128 but for `head-dim`",
        problems: || with_dense_twins(GPU_SETS.iter().flat_map(|problems| problems()).collect()),
    },
    Set {
        name: "lengths",
        about: "16 heads, local 1024 tokens, stride 16, at 512 to 131072 tokens",
        problems: || with_dense_twins(lengths()),
    },
    Set {
        name: "density",
        about: "16 heads at 32768 tokens, strides 2 to 32",
        problems: || with_dense_twins(density()),
    },
    Set {
        name: "heads",
        about: "16, 32 and 64 heads at 32768 tokens, the stride as wide as the heads, and 8 or 16",
        problems: || with_dense_twins(heads()),
    },
    Set {
        name: "blocks",
        about: "blocks of 16 to 128 at 32768 tokens: equal local tokens, and blocks of 128 with twice as many",
        problems: || with_dense_twins(blocks()),
    },
    Set {
        name: "head-dim",
        about: "d 64, 96, 192 and 256 at 32768 tokens",
        problems: || with_dense_twins(head_dim()),
    },
    Set {
        name: "gqa",
        about: "32 query and 8 key/value heads, Phi-3-small's pattern among them",
        problems: || with_dense_twins(gqa()),
    },
    Set {
        name: "batch",
        about: "4 sequences of 8192 tokens",
        problems: || with_dense_twins(batch()),
    },
    Set {
        name: "paper",
        about: "the paper's shapes: 16, 32 and 64 heads, the stride as wide, at 131072 tokens",
        problems: || with_dense_twins(paper()),
    },
    Set {
        name: "dense",
        about: "dense attention at 8192 and 32768 tokens",
        problems: dense,
    },
    Set {
        name: "f32",
        about: "f32, Burn's default type, at 8192 tokens",
        problems: || with_dense_twins(f32()),
    },
];

const GPU_SETS: [fn() -> Vec<Problem>; 10] = [
    lengths, density, heads, blocks, head_dim, gqa, batch, dense, f32, paper,
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

/// What the GPU problems have in common.
const GPU: Shape = Shape {
    batch: 1,
    heads: 16,
    kv_heads: 16,
    seq: 32 << 10,
    head_dim: 128,
    dtype: Dtype::Bf16,
};

impl Shape {
    const fn at(self, seq: usize) -> Self {
        Self { seq, ..self }
    }

    const fn with_heads(self, heads: usize) -> Self {
        Self {
            heads,
            kv_heads: heads,
            ..self
        }
    }
}

fn cpu() -> Vec<Problem> {
    let mut problems = Vec::new();
    for seq in [512, 1024, 2048, 4096, 8192] {
        problems.push(CPU.at(seq).sparse(64, 4, 8));
    }
    for vert_stride in [2, 4, 16] {
        problems.push(CPU.at(4096).sparse(64, 4, vert_stride));
    }
    for block in [16, 32] {
        problems.push(CPU.sparse(block, 4, 8));
    }
    let wide = Shape {
        head_dim: 128,
        ..CPU
    };
    problems.push(wide.sparse(64, 4, 8));
    problems.push(Shape { kv_heads: 2, ..CPU }.sparse(64, 4, 8));
    problems
}

fn lengths() -> Vec<Problem> {
    let seqs = (9..18).map(|log2| 1 << log2);
    seqs.map(|seq| GPU.at(seq).sparse(64, 16, 16)).collect()
}

fn density() -> Vec<Problem> {
    [2, 4, 8, 16, 32]
        .map(|vert_stride| GPU.sparse(64, 16, vert_stride))
        .into()
}

fn heads() -> Vec<Problem> {
    let mut problems = Vec::new();
    for heads in [16, 32, 64] {
        for vert_stride in [heads, 8, 16] {
            problems.push(GPU.with_heads(heads).sparse(64, 8, vert_stride));
        }
    }
    problems
}

fn blocks() -> Vec<Problem> {
    [(16, 32), (32, 16), (64, 8), (128, 4), (128, 8)]
        .map(|(block, local_blocks)| GPU.sparse(block, local_blocks, 16))
        .into()
}

fn head_dim() -> Vec<Problem> {
    [64, 96, 192, 256]
        .map(|head_dim| Shape { head_dim, ..GPU }.sparse(64, 8, 16))
        .into()
}

fn gqa() -> Vec<Problem> {
    let grouped = Shape {
        kv_heads: 8,
        ..GPU.with_heads(32)
    };
    let phi3_small = grouped.at(8192).sparse(64, 16, 8);
    vec![
        phi3_small,
        grouped.sparse(64, 16, 8),
        grouped.sparse(64, 8, 32),
    ]
}

fn batch() -> Vec<Problem> {
    let four = Shape { batch: 4, ..GPU };
    vec![four.at(8192).sparse(64, 16, 16)]
}

fn paper() -> Vec<Problem> {
    [16, 32, 64]
        .map(|heads| GPU.with_heads(heads).at(128 << 10).sparse(64, 8, heads))
        .into()
}

fn dense() -> Vec<Problem> {
    [8 << 10, 32 << 10].map(|seq| GPU.at(seq).dense()).into()
}

fn f32() -> Vec<Problem> {
    let f32 = Shape {
        dtype: Dtype::F32,
        ..GPU
    };
    vec![f32.at(8192).sparse(64, 16, 16)]
}

/// The problems with the dense problem of each shape before its first sparse one: speed-ups are relative to it.
pub fn with_dense_twins(problems: Vec<Problem>) -> Vec<Problem> {
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
#[error(
    "no problem is named {name:?}: give a set ({sets}), part of a problem's name, e.g. s2048_d64, or a whole name, e.g. b1_h8kv2_s2048_d64_bf16_blk64_l4_v8",
    sets = set_names()
)]
pub struct UnknownProblem {
    name: String,
}

fn set_names() -> String {
    SETS.map(|set| set.name).join(", ")
}

/// The problems of a comma-separated list: sets and parts of problem names, with their dense twins; whole names, in the
/// catalogue or not, as they are.
///
/// # Errors
/// A part that names nothing.
pub fn select(list: &str) -> Result<Vec<Problem>, UnknownProblem> {
    let mut selected: Vec<Problem> = Vec::new();
    for name in list.split(',').map(str::trim) {
        let found = match (find_set(name), name.parse()) {
            (Some(set), _) => (set.problems)(),
            (None, Ok(problem)) => vec![problem],
            (None, Err(_)) => with_dense_twins(with_part(name)),
        };
        if found.is_empty() {
            return Err(UnknownProblem {
                name: name.to_owned(),
            });
        }
        for problem in found {
            if !selected.contains(&problem) {
                selected.push(problem);
            }
        }
    }
    Ok(selected)
}

fn find_set(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}

fn with_part(part: &str) -> Vec<Problem> {
    let all = SETS.iter().flat_map(|set| (set.problems)());
    all.filter(|problem| !part.is_empty() && problem.name.contains(part))
        .collect()
}
