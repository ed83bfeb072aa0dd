//! One attention call: shapes, pattern, scale and sequences, checked once and read by every engine.

use std::f64::consts::LOG2_E;

use s2_attention_pattern::Pattern;
use serde::{Deserialize, Serialize};

use crate::sequence::{of_batch, of_documents};
use crate::{LeftPadding, PackedSequences, ProblemError, Sequence, SequenceSpan};

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

/// A checked attention call.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionProblem {
    shape: AttentionShape,
    scale: f64,
    sequences: Vec<Sequence>,
    // Last, since a table takes the longest to compare.
    pattern: Pattern,
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
        let nothing = vec![LeftPadding::default(); shape.batch];
        Self::padded(shape, pattern, scale, spans, &nothing)
    }

    /// [`AttentionProblem::new`] of a batch whose items begin with `padding` (one an item): the first query of the first
    /// item is in row `padding[0].q`, and so on. By default the rows behind the padding are all tokens.
    ///
    /// # Errors
    /// Those of [`AttentionProblem::new`], and [`ProblemError::PaddingCount`] and [`ProblemError::Padding`].
    pub fn padded(
        shape: AttentionShape,
        pattern: &Pattern,
        scale: Option<f64>,
        spans: Option<Vec<SequenceSpan>>,
        padding: &[LeftPadding],
    ) -> Result<Self, ProblemError> {
        let scale = check_call(&shape, pattern, scale)?;
        check_padding(&shape, padding)?;
        let rows = padding
            .iter()
            .map(|before| [shape.seq_q - before.q, shape.seq_kv - before.kv]);
        let spans = match spans {
            Some(spans) => spans,
            None => (rows.clone())
                .map(|[seq_q, seq_kv]| {
                    SequenceSpan::aligned(seq_q, seq_kv)
                        .ok_or(ProblemError::MoreQueriesThanKeys { seq_q, seq_kv })
                })
                .collect::<Result<_, _>>()?,
        };
        if spans.len() != shape.batch {
            return Err(ProblemError::SpanCount {
                seen: spans.len(),
                accepted: shape.batch,
            });
        }
        check_spans(pattern, spans.iter().copied().zip(rows))?;
        Ok(Self {
            shape,
            scale,
            sequences: of_batch(&shape, &spans, padding),
            pattern: pattern.clone(),
        })
    }

    /// Checks a call over `documents`, which are packed into the only item of a batch: `shape.seq_q` and `shape.seq_kv` are
    /// the tokens of all of them. Rows behind the last document are padding.
    ///
    /// # Errors
    /// Those of [`AttentionProblem::new`], and [`ProblemError::PackedBatch`] and [`ProblemError::PackedTotal`].
    pub fn packed(
        shape: AttentionShape,
        pattern: &Pattern,
        scale: Option<f64>,
        documents: &PackedSequences,
    ) -> Result<Self, ProblemError> {
        let scale = check_call(&shape, pattern, scale)?;
        let sequences = of_documents(&shape, documents)?;
        let spans = sequences.iter().map(|sequence| sequence.span);
        check_spans(pattern, spans.map(|span| (span, [span.q_len, span.kv_len])))?;
        Ok(Self {
            shape,
            scale,
            sequences,
            pattern: pattern.clone(),
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
        f32_scale(self.scale)
    }

    /// The sequences, by item and row. Each row of the tensors belongs to exactly one: padding to the one before it, and
    /// to one without tokens where there is none.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }
}

/// Checks what has nothing to do with sequences, and returns the scale.
fn check_call(
    shape: &AttentionShape,
    pattern: &Pattern,
    scale: Option<f64>,
) -> Result<f64, ProblemError> {
    check_axes(shape)?;
    check_heads(shape.num_heads, shape.num_kv_heads, pattern)?;
    check_scale(scale, shape.head_dim)
}

/// Checks the heads of tensors against the pattern's.
pub(crate) fn check_heads(
    num_heads: usize,
    num_kv_heads: usize,
    pattern: &Pattern,
) -> Result<(), ProblemError> {
    if num_heads != pattern.num_heads() {
        return Err(ProblemError::QueryHeads {
            seen: num_heads,
            accepted: pattern.num_heads(),
        });
    }
    if num_kv_heads != pattern.num_kv_heads() {
        return Err(ProblemError::KeyValueHeads {
            seen: num_kv_heads,
            accepted: pattern.num_kv_heads(),
        });
    }
    Ok(())
}

/// The scale, by default `1/sqrt(head_dim)`.
pub(crate) fn check_scale(scale: Option<f64>, head_dim: usize) -> Result<f64, ProblemError> {
    let scale = scale.unwrap_or_else(|| 1.0 / (head_dim as f64).sqrt());
    if (scale * LOG2_E).is_finite() {
        Ok(scale)
    } else {
        Err(ProblemError::Scale { seen: scale })
    }
}

/// The scale, checked for kernels that apply it in f32 and to base 2.
pub(crate) fn f32_scale(scale: f64) -> Result<f32, ProblemError> {
    if ((scale * LOG2_E) as f32).is_finite() {
        Ok(scale as f32)
    } else {
        Err(ProblemError::Scale { seen: scale })
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

fn check_padding(shape: &AttentionShape, padding: &[LeftPadding]) -> Result<(), ProblemError> {
    if padding.len() != shape.batch {
        return Err(ProblemError::PaddingCount {
            seen: padding.len(),
            accepted: shape.batch,
        });
    }
    for (sequence, before) in padding.iter().enumerate() {
        let sides = [
            ("q", before.q, shape.seq_q),
            ("kv", before.kv, shape.seq_kv),
        ];
        for (side, seen, accepted) in sides {
            if seen > accepted {
                return Err(ProblemError::Padding {
                    sequence,
                    side,
                    seen,
                    accepted,
                });
            }
        }
    }
    Ok(())
}

/// Checks positions, each with the rows that there are for its queries and keys.
fn check_spans(
    pattern: &Pattern,
    spans: impl Iterator<Item = (SequenceSpan, [usize; 2])>,
) -> Result<(), ProblemError> {
    let table = pattern.max_blocks();
    for (sequence, (span, [q_rows, kv_rows])) in spans.enumerate() {
        let sides = [
            (
                "q_start",
                "q_len",
                "query",
                span.q_start,
                span.q_len,
                q_rows,
                table.map(|t| t.0),
            ),
            (
                "kv_start",
                "kv_len",
                "key",
                span.kv_start,
                span.kv_len,
                kv_rows,
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
