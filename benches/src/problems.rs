//! Named attention problems.
//!
//! A name says the whole problem: `b1_h8kv2_s2048_d64_f32_blk64_l4_v8` is batch 1, 8 query and 2 key/value heads, 2048
//! tokens, head dimension 64, f32, blocks of 64 tokens, a local window of 4 blocks and a vertical stride of 8. `_perkv` after it
//! says that the pattern is that of key/value heads.

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

/// A pass of a problem, as programs in other languages are told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point<'a> {
    /// The problem.
    #[serde(flatten)]
    pub problem: &'a Problem,
    /// Attended (query, key) pairs of all heads of one sequence, of its last query alone in `decode`: what a mask made elsewhere
    /// must have too.
    pub pairs: u64,
    /// The pass.
    pub pass: Pass,
}

/// What the last token of each sequence attends: one step of decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastToken {
    /// Keys that its query heads attend, summed over them, in one sequence.
    pub pairs: u64,
    /// Bytes of the keys and values that are among them, each once, in all sequences: what must be read.
    pub bytes: u64,
}

/// What ends the names of patterns of key/value heads.
const BY_KV_HEAD: &str = "perkv";

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

    /// [`Shape::sparse`] with a pattern for each key/value head, which its query heads share.
    pub fn sparse_by_kv_head(
        self,
        block: usize,
        local_blocks: usize,
        vert_stride: usize,
    ) -> Problem {
        let problem = self.sparse(block, local_blocks, vert_stride);
        Problem {
            name: format!("{}_{BY_KV_HEAD}", problem.name),
            pattern: problem.pattern.per_kv_head(),
            ..problem
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

    /// What its last token attends.
    ///
    /// # Errors
    /// A pattern that means nothing.
    pub fn last_token(&self) -> Result<LastToken, PatternError> {
        let (shape, pattern) = (self.shape, self.pattern.build()?);
        let block = pattern.block_size();
        let blocks = shape.seq.div_ceil(block);
        let (mut pairs, mut keys) = (0, 0);
        for kv_head in 0..shape.kv_heads {
            for key_block in 0..blocks {
                let attends = |head: &usize| pattern.attends(*head, blocks - 1, key_block);
                let heads = pattern.heads().query_heads(kv_head);
                let heads = heads.filter(attends).count();
                let tokens = (shape.seq - key_block * block).min(block);
                pairs += heads * tokens;
                keys += if heads > 0 { tokens } else { 0 };
            }
        }
        let of_key = 2 * shape.head_dim * shape.dtype.size();
        Ok(LastToken {
            pairs: pairs as u64,
            bytes: (shape.batch * keys * of_key) as u64,
        })
    }

    /// One of its passes.
    ///
    /// # Errors
    /// A pattern that means nothing.
    pub fn point(&self, pass: Pass) -> Result<Point<'_>, PatternError> {
        Ok(Point {
            problem: self,
            pairs: self.pairs(pass)?,
            pass,
        })
    }

    /// Pairs of one sequence.
    fn pairs(&self, pass: Pass) -> Result<u64, PatternError> {
        Ok(match pass {
            Pass::Decode => self.last_token()?.pairs,
            // 2^20 tokens of 2^16 heads have 2^56 pairs at most.
            _ => self.report()?.attended_pairs as u64,
        })
    }

    /// Floating-point operations on attended pairs: `4 * pairs * head_dim` forward (two products, a multiplication and
    /// an addition each), 2.5 times that backward (five products). `None` for passes that are more than attention.
    ///
    /// # Errors
    /// A pattern that means nothing.
    pub fn useful_flops(&self, pass: Pass) -> Result<Option<f64>, PatternError> {
        let factor = match pass {
            Pass::Forward | Pass::Prefill | Pass::Decode => 1.0,
            Pass::Backward => 2.5,
            Pass::ForwardBackward => 3.5,
            Pass::HostForward | Pass::HostOperation | Pass::TrainStep => return Ok(None),
        };
        let pairs = self.pairs(pass)? as f64 * self.shape.batch as f64;
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
        [block, local, stride, BY_KV_HEAD] => Some(shape.sparse_by_kv_head(
            number(block, "blk")?,
            number(local, "l")?,
            number(stride, "v")?,
        )),
        _ => None,
    }
}
