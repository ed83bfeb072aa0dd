//! One attention call: shapes, pattern, scale and positions, checked once and read by every engine.

use std::f64::consts::LOG2_E;

use s2_attention_pattern::Pattern;
use serde::{Deserialize, Serialize};

use crate::ProblemError;

/// Positions stay below this many tokens, so that every engine can hold them in 32 bits with a sign.
pub const MAX_POSITION: usize = i32::MAX as usize;

/// The sizes of `q [batch, num_heads, seq_q, head_dim]`, `k [batch, num_kv_heads, seq_kv, head_dim]` and
/// `v [batch, num_kv_heads, seq_kv, value_dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttentionShape {
    /// Sequences in the batch.
    pub batch: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Query tokens a sequence.
    pub seq_q: usize,
    /// Key/value tokens a sequence.
    pub seq_kv: usize,
    /// Elements of a query or key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
}

impl AttentionShape {
    /// `[batch, num_heads, seq_q, head_dim]`.
    pub fn q_sizes(&self) -> [usize; 4] {
        [self.batch, self.num_heads, self.seq_q, self.head_dim]
    }

    /// `[batch, num_kv_heads, seq_kv, head_dim]`.
    pub fn k_sizes(&self) -> [usize; 4] {
        [self.batch, self.num_kv_heads, self.seq_kv, self.head_dim]
    }

    /// `[batch, num_kv_heads, seq_kv, value_dim]`.
    pub fn v_sizes(&self) -> [usize; 4] {
        [self.batch, self.num_kv_heads, self.seq_kv, self.value_dim]
    }

    /// `[batch, num_heads, seq_q, value_dim]`.
    pub fn out_sizes(&self) -> [usize; 4] {
        [self.batch, self.num_heads, self.seq_q, self.value_dim]
    }
}

/// Where the tokens of one sequence stand, in absolute token positions; nothing needs to be aligned to blocks.
///
/// Rows of the tensors beyond `q_len` and `kv_len` are padding: they are never read, and their results are an
/// output of 0, an lse of `-inf` and gradients of 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SequenceSpan {
    /// Position of the first query, in tokens.
    pub q_start: usize,
    /// Number of queries, in tokens.
    pub q_len: usize,
    /// Position of the first key, in tokens.
    pub kv_start: usize,
    /// Number of keys, in tokens.
    pub kv_len: usize,
}

/// A checked attention call.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionProblem {
    shape: AttentionShape,
    pattern: Pattern,
    scale: f64,
    spans: Vec<SequenceSpan>,
}

impl AttentionProblem {
    /// Checks a call. `scale` defaults to `1/sqrt(head_dim)`; `spans` (one a sequence) default to keys from
    /// position 0 and the last query on the last key.
    ///
    /// # Errors
    /// Returns a [`ProblemError`] for anything that the tensors, the pattern and the positions disagree about.
    pub fn new(
        shape: AttentionShape,
        pattern: &Pattern,
        scale: Option<f64>,
        spans: Option<Vec<SequenceSpan>>,
    ) -> Result<Self, ProblemError> {
        check_axes(&shape)?;
        if shape.num_heads != pattern.num_heads() {
            return Err(ProblemError::QueryHeads {
                seen: shape.num_heads,
                accepted: pattern.num_heads(),
            });
        }
        if shape.num_kv_heads != pattern.num_kv_heads() {
            return Err(ProblemError::KeyValueHeads {
                seen: shape.num_kv_heads,
                accepted: pattern.num_kv_heads(),
            });
        }
        let scale = scale.unwrap_or_else(|| 1.0 / (shape.head_dim as f64).sqrt());
        if !(scale * LOG2_E).is_finite() {
            return Err(ProblemError::Scale { seen: scale });
        }
        let spans = match spans {
            Some(spans) => spans,
            None => vec![default_span(&shape)?; shape.batch],
        };
        check_spans(&shape, pattern, &spans)?;
        Ok(Self {
            shape,
            pattern: pattern.clone(),
            scale,
            spans,
        })
    }

    /// The sizes of the tensors.
    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// Which key blocks a query block attends.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The factor on the scores before the softmax.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The scale, checked for kernels that apply it in f32 and to base 2.
    ///
    /// # Errors
    /// [`ProblemError::Scale`] where its product with `log2(e)` is beyond f32.
    pub fn f32_scale(&self) -> Result<f32, ProblemError> {
        if ((self.scale * core::f64::consts::LOG2_E) as f32).is_finite() {
            Ok(self.scale as f32)
        } else {
            Err(ProblemError::Scale { seen: self.scale })
        }
    }

    /// Where each sequence of the batch stands.
    pub fn spans(&self) -> &[SequenceSpan] {
        &self.spans
    }
}

fn check_axes(shape: &AttentionShape) -> Result<(), ProblemError> {
    let axes = [
        ("batch", shape.batch),
        ("num_heads", shape.num_heads),
        ("num_kv_heads", shape.num_kv_heads),
        ("seq_q", shape.seq_q),
        ("seq_kv", shape.seq_kv),
        ("head_dim", shape.head_dim),
        ("value_dim", shape.value_dim),
    ];
    match axes.into_iter().find(|(_, size)| *size == 0) {
        Some((axis, _)) => Err(ProblemError::EmptyAxis { axis }),
        None => Ok(()),
    }
}

fn default_span(shape: &AttentionShape) -> Result<SequenceSpan, ProblemError> {
    let AttentionShape { seq_q, seq_kv, .. } = *shape;
    if seq_q > seq_kv {
        return Err(ProblemError::MoreQueriesThanKeys { seq_q, seq_kv });
    }
    Ok(SequenceSpan {
        q_start: seq_kv - seq_q,
        q_len: seq_q,
        kv_start: 0,
        kv_len: seq_kv,
    })
}

fn check_spans(
    shape: &AttentionShape,
    pattern: &Pattern,
    spans: &[SequenceSpan],
) -> Result<(), ProblemError> {
    if spans.len() != shape.batch {
        return Err(ProblemError::SpanCount {
            seen: spans.len(),
            accepted: shape.batch,
        });
    }
    let table = pattern.max_blocks();
    for (sequence, span) in spans.iter().enumerate() {
        let sides = [
            (
                "q_start",
                "q_len",
                "query",
                span.q_start,
                span.q_len,
                shape.seq_q,
                table.map(|t| t.0),
            ),
            (
                "kv_start",
                "kv_len",
                "key",
                span.kv_start,
                span.kv_len,
                shape.seq_kv,
                table.map(|t| t.1),
            ),
        ];
        for (start_name, len_name, side, start, len, longest, table_blocks) in sides {
            if len > longest {
                return Err(ProblemError::SpanLength {
                    sequence,
                    name: len_name,
                    seen: len,
                    accepted: longest,
                });
            }
            let end = start.checked_add(len).filter(|end| *end <= MAX_POSITION);
            let Some(end) = end else {
                return Err(ProblemError::SpanPosition {
                    sequence,
                    name: start_name,
                    seen: start,
                    accepted: MAX_POSITION,
                });
            };
            let blocks = end.div_ceil(pattern.block_size());
            if let Some(accepted) = table_blocks
                && len > 0
                && blocks > accepted
            {
                return Err(ProblemError::TableTooSmall {
                    sequence,
                    name: side,
                    seen: blocks,
                    accepted,
                });
            }
        }
    }
    Ok(())
}
