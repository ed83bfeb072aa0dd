//! What can be wrong with a cache or a step of it, found before anything changes.

use thiserror::Error;

use super::SequenceId;
use crate::ProblemError;

/// A cache or a step that cannot be honoured. Every message names the values seen and what would be accepted.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A later key could be attended by an earlier query, which is gone by then.
    #[error(
        "query head {head} of the pattern attends keys after its query; a cache takes causal patterns only \
         (`Rule::CausalClamp` makes one of any)"
    )]
    NotCausal {
        /// The first such query head.
        head: usize,
    },
    /// A length that no sequence can have.
    #[error("max_tokens is {seen}; a cache takes sequences of 1 to {accepted} tokens")]
    MaxTokens {
        /// The length given, in tokens.
        seen: usize,
        /// The longest length, in tokens.
        accepted: usize,
    },
    /// A number of pages that no pool can have.
    #[error("the pool is limited to {seen} pages; it takes 1 to {accepted}")]
    PageLimit {
        /// The pages given.
        seen: usize,
        /// The most pages.
        accepted: usize,
    },
    /// The longest sequence reaches beyond a tabulated pattern.
    #[error(
        "max_tokens = {max_tokens} reaches {seen} blocks, but the pattern's table covers {accepted}; \
         build the mask for at least {seen} blocks"
    )]
    TableTooSmall {
        /// The length given, in tokens.
        max_tokens: usize,
        /// Blocks of that length.
        seen: usize,
        /// Blocks that the table covers.
        accepted: usize,
    },
    /// A sequence that was never added, or was removed.
    #[error("{sequence} is not in the cache; add it first, and not use it once it is removed")]
    UnknownSequence {
        /// The sequence given.
        sequence: SequenceId,
    },
    /// A sequence that is in a step twice.
    #[error("{sequence} is in items {first} and {second} of a step; give its tokens in one item")]
    DuplicateSequence {
        /// The sequence given.
        sequence: SequenceId,
        /// Its first item.
        first: usize,
        /// Its second item.
        second: usize,
    },
    /// A sequence whose last step has not been committed.
    #[error("{sequence} is in a step that is not committed; commit it, or reset the sequence")]
    OpenStep {
        /// The sequence given.
        sequence: SequenceId,
    },
    /// A step without items.
    #[error("the step has no items; append to at least one sequence")]
    NoItems,
    /// A sequence that would become too long.
    #[error(
        "{sequence} has {tokens} tokens and would get {appended} more; the cache was made for at most {accepted}"
    )]
    TooLong {
        /// The sequence given.
        sequence: SequenceId,
        /// Its length, in tokens.
        tokens: usize,
        /// What is appended, in tokens.
        appended: usize,
        /// `max_tokens` of the cache.
        accepted: usize,
    },
    /// A length that no sequence of the cache has.
    #[error(
        "{seen} tokens are more than a sequence has; the cache was made for at most {accepted}"
    )]
    Length {
        /// The length given, in tokens.
        seen: usize,
        /// `max_tokens` of the cache.
        accepted: usize,
    },
    /// The pool is full.
    #[error(
        "the step needs {needed} pages, but {free} of the pool's {pages} are free; \
         remove sequences, or give the cache more pages"
    )]
    OutOfPages {
        /// Pages that the step takes.
        needed: usize,
        /// Pages that there are for it.
        free: usize,
        /// Pages that the pool may have.
        pages: usize,
    },
    /// A step with more new tokens than rows can be counted.
    #[error("the step appends {seen} tokens; at most {accepted} fit in one step")]
    Rows {
        /// New tokens of all items.
        seen: usize,
        /// The most there may be.
        accepted: usize,
    },
    /// A table with more words than can be counted.
    #[error(
        "the step's table takes {seen} words; at most {accepted} fit: give it fewer sequences, or the cache fewer \
         max_tokens"
    )]
    Words {
        /// Words of the table.
        seen: usize,
        /// The most there may be.
        accepted: usize,
    },
    /// An axis is empty.
    #[error("{axis} is 0; a call on a cache holds at least one element on every axis")]
    EmptyAxis {
        /// The name of the axis.
        axis: &'static str,
    },
    /// What a call on a cache shares with any attention call.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}
