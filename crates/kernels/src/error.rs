//! What can be wrong with an attention call, found before anything runs.

use thiserror::Error;

/// A call that cannot be honoured. Every message names the values seen and what would be accepted.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// An axis is empty.
    #[error("{axis} is 0; every axis of q, k and v must hold at least one element")]
    EmptyAxis {
        /// The name of the axis.
        axis: &'static str,
    },
    /// The tensors and the pattern disagree about the number of query heads.
    #[error("q has {seen} heads, but the pattern is built for {accepted} query heads")]
    QueryHeads {
        /// Heads of `q`.
        seen: usize,
        /// Query heads of the pattern.
        accepted: usize,
    },
    /// The tensors and the pattern disagree about the number of key/value heads.
    #[error(
        "k and v have {seen} heads, but the pattern is built for {accepted} key/value heads \
         (`PatternConfig::with_num_kv_heads` sets them)"
    )]
    KeyValueHeads {
        /// Heads of `k` and `v`.
        seen: usize,
        /// Key/value heads of the pattern.
        accepted: usize,
    },
    /// The softmax scale is not a finite number in the precision that scores are computed in.
    #[error(
        "the softmax scale is {seen}; times log2(e) it must be finite in f32, or in f64 for f64 tensors \
         (the default is 1/sqrt(head_dim))"
    )]
    Scale {
        /// The scale given.
        seen: f64,
    },
    /// Default positions need at least as many keys as queries.
    #[error(
        "seq_q = {seq_q} is longer than seq_kv = {seq_kv}: by default the last query sits on the last key; \
         give a `SequenceSpan` per sequence to place the queries elsewhere"
    )]
    MoreQueriesThanKeys {
        /// Query tokens.
        seq_q: usize,
        /// Key tokens.
        seq_kv: usize,
    },
    /// Positions were given for another number of sequences.
    #[error("positions are given for {seen} sequences, but the batch holds {accepted}")]
    SpanCount {
        /// Spans given.
        seen: usize,
        /// The batch size.
        accepted: usize,
    },
    /// A span is longer than the tensor that holds it.
    #[error(
        "sequence {sequence}: {name} = {seen} is longer than the tensor, which holds {accepted} tokens"
    )]
    SpanLength {
        /// Index in the batch.
        sequence: usize,
        /// `q_len` or `kv_len`.
        name: &'static str,
        /// The length given, in tokens.
        seen: usize,
        /// The longest length, in tokens.
        accepted: usize,
    },
    /// A span ends beyond the largest position.
    #[error(
        "sequence {sequence}: {name} = {seen} does not fit; positions must end at or below {accepted} tokens"
    )]
    SpanPosition {
        /// Index in the batch.
        sequence: usize,
        /// `q_start` or `kv_start`.
        name: &'static str,
        /// The position given, in tokens.
        seen: usize,
        /// The largest end position, in tokens.
        accepted: usize,
    },
    /// The call reaches beyond a tabulated pattern.
    #[error(
        "sequence {sequence}: {name} blocks reach {seen}, but the pattern's table covers {accepted}; \
         build the mask for at least {seen} blocks"
    )]
    TableTooSmall {
        /// Index in the batch.
        sequence: usize,
        /// `query` or `key`.
        name: &'static str,
        /// Blocks the call needs.
        seen: usize,
        /// Blocks the table covers.
        accepted: usize,
    },
    /// Padding was given for another number of sequences.
    #[error("left padding is given for {seen} sequences, but the batch holds {accepted}")]
    PaddingCount {
        /// Entries given.
        seen: usize,
        /// The batch size.
        accepted: usize,
    },
    /// The padding is longer than the tensor.
    #[error(
        "sequence {sequence}: left padding of {side} is {seen}; the tensor holds {accepted} rows"
    )]
    Padding {
        /// Index in the batch.
        sequence: usize,
        /// `q` or `kv`.
        side: &'static str,
        /// The rows of padding.
        seen: usize,
        /// The most there may be.
        accepted: usize,
    },
    /// A list of offsets without a document.
    #[error(
        "{name} has {seen} entries; there must be at least 2: 0, then the end of each document"
    )]
    NoDocuments {
        /// `cu_seqlens_q` or `cu_seqlens_kv`.
        name: &'static str,
        /// Entries given.
        seen: usize,
    },
    /// Offsets that do not begin with the first token.
    #[error("{name} begins with {seen}; the first document must begin at 0")]
    FirstOffset {
        /// `cu_seqlens_q` or `cu_seqlens_kv`.
        name: &'static str,
        /// The first entry.
        seen: usize,
    },
    /// A document ends before it begins.
    #[error(
        "{name}: document {document} begins at {start} and ends at {end}; offsets must not decrease"
    )]
    DecreasingOffsets {
        /// `cu_seqlens_q` or `cu_seqlens_kv`.
        name: &'static str,
        /// Index of the document.
        document: usize,
        /// Its first token.
        start: usize,
        /// Its end.
        end: usize,
    },
    /// Queries and keys are of different numbers of documents.
    #[error(
        "cu_seqlens_q holds {q} documents and cu_seqlens_kv {kv}; both must hold the same documents"
    )]
    DocumentCount {
        /// Documents of the queries.
        q: usize,
        /// Documents of the keys.
        kv: usize,
    },
    /// A document's last query stands on its last key.
    #[error(
        "document {document} has {q_len} queries and {kv_len} keys; the last query stands on the last key, so there \
         may be at most {kv_len} queries (or no keys)"
    )]
    DocumentQueries {
        /// Index of the document.
        document: usize,
        /// Query tokens.
        q_len: usize,
        /// Key tokens.
        kv_len: usize,
    },
    /// Packed documents are the only item of a batch.
    #[error(
        "packed documents come in a batch of 1, got {seen}; join the items into one `[total, heads, width]`"
    )]
    PackedBatch {
        /// The batch size.
        seen: usize,
    },
    /// Documents end beyond the tensors.
    #[error(
        "the documents hold {seen} tokens of {side}, but the tensor only {accepted}; the last entry of \
         cu_seqlens_{side} may be at most {accepted}"
    )]
    PackedTotal {
        /// `q` or `kv`.
        side: &'static str,
        /// Tokens of the documents.
        seen: usize,
        /// Tokens of the tensor.
        accepted: usize,
    },
}
