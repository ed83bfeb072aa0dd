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
    ends_q: Arc<[usize]>,
    ends_kv: Arc<[usize]>,
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
        let ends_q = ends("cu_seqlens_q", cu_seqlens_q)?;
        let ends_kv = ends("cu_seqlens_kv", cu_seqlens_kv)?;
        if ends_q.len() != ends_kv.len() {
            return Err(ProblemError::DocumentCount {
                q: ends_q.len(),
                kv: ends_kv.len(),
            });
        }
        for (document, (q, kv)) in lengths(ends_q).zip(lengths(ends_kv)).enumerate() {
            SequenceSpan::aligned(q, kv).map_err(|[q_len, kv_len]| {
                ProblemError::DocumentQueries {
                    document,
                    q_len,
                    kv_len,
                }
            })?;
        }
        Ok(Self {
            ends_q: ends_q.into(),
            ends_kv: ends_kv.into(),
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
        self.ends_q.len()
    }

    /// Queries of all documents, in tokens.
    pub fn total_q(&self) -> usize {
        self.ends_q.last().copied().unwrap_or(0)
    }

    /// Keys of all documents, in tokens.
    pub fn total_kv(&self) -> usize {
        self.ends_kv.last().copied().unwrap_or(0)
    }

    /// Whether the keys of each document are those of its queries.
    pub fn are_whole(&self) -> bool {
        self.ends_q == self.ends_kv
    }

    /// The positions of each document's tokens, from 0 in each.
    pub fn spans(&self) -> impl Iterator<Item = SequenceSpan> + '_ {
        let pairs = lengths(&self.ends_q).zip(lengths(&self.ends_kv));
        pairs.map(|(q_len, kv_len)| SequenceSpan {
            q_start: kv_len.saturating_sub(q_len),
            q_len,
            kv_start: 0,
            kv_len,
        })
    }
}

/// The offsets after the first, which is 0.
fn ends<'a>(name: &'static str, offsets: &'a [usize]) -> Result<&'a [usize], ProblemError> {
    let (first, ends) = match offsets.split_first() {
        Some((first, ends)) if !ends.is_empty() => (*first, ends),
        _ => {
            return Err(ProblemError::NoDocuments {
                name,
                seen: offsets.len(),
            });
        }
    };
    if first != 0 {
        return Err(ProblemError::FirstOffset { name, seen: first });
    }
    match offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        Some(document) => Err(ProblemError::DecreasingOffsets {
            name,
            document,
            start: offsets[document],
            end: offsets[document + 1],
        }),
        None => Ok(ends),
    }
}

fn lengths(ends: &[usize]) -> impl Iterator<Item = usize> + '_ {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    ends.iter().zip(starts).map(|(end, start)| end - start)
}
