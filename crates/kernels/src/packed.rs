//! Documents of different lengths, packed one after the other.

use std::sync::Arc;

use crate::{ProblemError, SequenceSpan};

/// Documents packed one after the other, without padding, into tensors `[total, heads, width]`.
///
/// Positions and blocks begin anew in each document, and no token attends one of another document. The last query of a
/// document stands on its last key (position `kv_len - 1`, the keys from 0), as in a call of that document alone.
///
/// Built once on the host and cheap to clone; nothing is read from a device.
///
/// ```
/// use s2_attention_kernels::PackedSequences;
///
/// // 3 documents of 5, 0 and 7 tokens: queries 0..5, none, 5..12, and the keys likewise.
/// let documents = PackedSequences::new(&[0, 5, 5, 12], &[0, 5, 5, 12])?;
/// assert_eq!(documents, PackedSequences::from_lengths(&[5, 0, 7])?);
/// assert_eq!((documents.num_documents(), documents.total_q()), (3, 12));
/// assert!(PackedSequences::new(&[0, 5, 3], &[0, 5, 3]).is_err());
/// # Ok::<(), s2_attention_kernels::ProblemError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PackedSequences {
    /// The positions of each document's tokens.
    spans: Arc<[SequenceSpan]>,
}

impl PackedSequences {
    /// Documents by the offsets of their first tokens and the end of the last: document `i` has the queries
    /// `cu_seqlens_q[i]..cu_seqlens_q[i + 1]` and the keys `cu_seqlens_kv[i]..cu_seqlens_kv[i + 1]`, in tokens.
    ///
    /// Documents may be empty, and may have fewer queries than keys (a part of a document after its beginning).
    ///
    /// # Errors
    /// [`ProblemError::NoDocuments`], [`ProblemError::FirstOffset`], [`ProblemError::DecreasingOffsets`],
    /// [`ProblemError::DocumentCount`] and [`ProblemError::DocumentQueries`].
    pub fn new(cu_seqlens_q: &[usize], cu_seqlens_kv: &[usize]) -> Result<Self, ProblemError> {
        let q = lengths("cu_seqlens_q", cu_seqlens_q)?;
        let kv = lengths("cu_seqlens_kv", cu_seqlens_kv)?;
        if q.len() != kv.len() {
            return Err(ProblemError::DocumentCount {
                q: q.len(),
                kv: kv.len(),
            });
        }
        let documents = q.into_iter().zip(kv).enumerate();
        let spans = documents.map(|(document, (q_len, kv_len))| {
            SequenceSpan::aligned(q_len, kv_len).ok_or(ProblemError::DocumentQueries {
                document,
                q_len,
                kv_len,
            })
        });
        Ok(Self {
            spans: spans.collect::<Result<_, _>>()?,
        })
    }

    /// Documents of those numbers of tokens, each attending itself.
    ///
    /// # Errors
    /// [`ProblemError::NoDocuments`] where there is none.
    pub fn from_lengths(lengths: &[usize]) -> Result<Self, ProblemError> {
        let ends = lengths.iter().scan(0_usize, |end, length| {
            // What no memory holds is refused where it meets a tensor.
            *end = end.saturating_add(*length);
            Some(*end)
        });
        let offsets: Vec<usize> = std::iter::once(0).chain(ends).collect();
        Self::new(&offsets, &offsets)
    }

    /// The number of documents, at least 1.
    pub fn num_documents(&self) -> usize {
        self.spans.len()
    }

    /// Queries of all documents, in tokens.
    pub fn total_q(&self) -> usize {
        self.spans.iter().map(|span| span.q_len).sum()
    }

    /// Keys of all documents, in tokens.
    pub fn total_kv(&self) -> usize {
        self.spans.iter().map(|span| span.kv_len).sum()
    }

    /// Whether each document has as many queries as keys.
    pub fn are_whole(&self) -> bool {
        self.spans.iter().all(|span| span.q_len == span.kv_len)
    }

    /// The positions of each document's tokens, those of its keys from 0.
    pub fn spans(&self) -> &[SequenceSpan] {
        &self.spans
    }
}

/// The lengths between offsets.
fn lengths(name: &'static str, offsets: &[usize]) -> Result<Vec<usize>, ProblemError> {
    if offsets.len() < 2 {
        return Err(ProblemError::NoDocuments {
            name,
            seen: offsets.len(),
        });
    }
    if offsets[0] != 0 {
        return Err(ProblemError::FirstOffset {
            name,
            seen: offsets[0],
        });
    }
    let documents = offsets.windows(2).enumerate();
    let lengths = documents.map(|(document, ends)| {
        let (start, end) = (ends[0], ends[1]);
        let length = end.checked_sub(start);
        length.ok_or(ProblemError::DecreasingOffsets {
            name,
            document,
            start,
            end,
        })
    });
    lengths.collect()
}
