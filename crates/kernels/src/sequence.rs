//! Where the tokens of a call's sequences stand: their positions, and the rows of the tensors that hold them.

use serde::{Deserialize, Serialize};

use crate::{AttentionShape, PackedSequences, ProblemError};

/// Where the tokens of one sequence stand, in absolute token positions; nothing needs to be aligned to blocks.
///
/// Rows of the tensors that hold no token are padding: they are never read, and their results are an output of 0, an lse
/// of `-inf` and gradients of 0.
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

impl SequenceSpan {
    /// The default of calls: keys from position 0, the last query on the last key. `None` where there are too few keys for that,
    /// but any at all.
    pub(crate) fn aligned(q_len: usize, kv_len: usize) -> Option<Self> {
        (q_len <= kv_len || kv_len == 0).then(|| Self {
            q_start: kv_len.saturating_sub(q_len),
            q_len,
            kv_start: 0,
            kv_len,
        })
    }
}

/// Rows of padding before the first token of a sequence. Those after its last one follow from its lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LeftPadding {
    /// Rows of `q`, `out` and lse, in tokens.
    pub q: usize,
    /// Rows of `k` and `v`, in tokens.
    pub kv: usize,
}

/// One sequence of a call: the rows that it owns of one item of the batch, first its tokens, then padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence {
    /// Index in the batch.
    pub item: usize,
    /// The row of its first query.
    pub q_row: usize,
    /// Rows of `q`, `out` and lse that are its own: at least as many as it has queries.
    pub q_rows: usize,
    /// The row of its first key.
    pub kv_row: usize,
    /// Rows of `k` and `v` that are its own: at least as many as it has keys.
    pub kv_rows: usize,
    /// The positions of its tokens.
    pub span: SequenceSpan,
}

/// A sequence for each item of a batch, and where an item begins with padding a sequence without tokens before it.
pub(crate) fn of_batch(
    shape: &AttentionShape,
    spans: &[SequenceSpan],
    padding: &[LeftPadding],
) -> Vec<Sequence> {
    let nothing = SequenceSpan {
        q_start: 0,
        q_len: 0,
        kv_start: 0,
        kv_len: 0,
    };
    let items = spans.iter().zip(padding).enumerate();
    let sequences = items.flat_map(|(item, (span, before))| {
        [
            Sequence {
                item,
                q_row: 0,
                q_rows: before.q,
                kv_row: 0,
                kv_rows: before.kv,
                span: nothing,
            },
            Sequence {
                item,
                q_row: before.q,
                q_rows: shape.seq_q - before.q,
                kv_row: before.kv,
                kv_rows: shape.seq_kv - before.kv,
                span: *span,
            },
        ]
    });
    // An axis holds at least one row: the second of each pair stays.
    sequences
        .filter(|sequence| sequence.span != nothing || sequence.q_rows + sequence.kv_rows > 0)
        .collect()
}

/// A sequence for each document of the only item of the batch. Rows behind the last document are its padding.
///
/// # Errors
/// [`ProblemError::PackedBatch`] and [`ProblemError::PackedTotal`].
pub(crate) fn of_documents(
    shape: &AttentionShape,
    documents: &PackedSequences,
) -> Result<Vec<Sequence>, ProblemError> {
    if shape.batch != 1 {
        return Err(ProblemError::PackedBatch { seen: shape.batch });
    }
    let sides = [
        ("q", documents.total_q(), shape.seq_q),
        ("kv", documents.total_kv(), shape.seq_kv),
    ];
    for (side, seen, accepted) in sides {
        if seen > accepted {
            return Err(ProblemError::PackedTotal {
                side,
                seen,
                accepted,
            });
        }
    }
    let spans = documents.spans().iter();
    let mut sequences: Vec<Sequence> = spans
        .scan((0, 0), |(q_row, kv_row), &span| {
            let sequence = Sequence {
                item: 0,
                q_row: *q_row,
                q_rows: span.q_len,
                kv_row: *kv_row,
                kv_rows: span.kv_len,
                span,
            };
            *q_row += span.q_len;
            *kv_row += span.kv_len;
            Some(sequence)
        })
        .collect();
    if let Some(last) = sequences.last_mut() {
        last.q_rows = shape.seq_q - last.q_row;
        last.kv_rows = shape.seq_kv - last.kv_row;
    }
    Ok(sequences)
}
