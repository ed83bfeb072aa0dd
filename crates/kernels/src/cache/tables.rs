//! Which page holds which block of which sequence, on the host.

use std::fmt;

use s2_attention_pattern::Pattern;

use super::{Append, CacheError, Entry, Step};

/// A sequence of a cache.
///
/// Tables on which the same calls are made give the same ids, so that the tables of a model's patterns can share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sequence {}", self.0)
    }
}

/// How large a cache may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheLimits {
    /// The most pages of a pool; `None` lets it grow.
    pub pages: Option<usize>,
    /// The longest sequence, in tokens.
    pub max_tokens: usize,
}

/// The pages of all sequences of a cache; see the [module](super).
#[derive(Debug, Clone)]
pub struct BlockTables {
    pattern: Pattern,
    limits: CacheLimits,
    evict: bool,
    capacity: usize,
}

impl BlockTables {
    /// Tables of a causal pattern, without sequences. With `evict`, pages are freed once no later query attends their
    /// block; without, every block keeps its page (the full cache), and the lists and the output are the same.
    ///
    /// Takes time in proportion to the blocks of `max_tokens`.
    ///
    /// # Errors
    /// [`CacheError::NotCausal`], [`CacheError::MaxTokens`], [`CacheError::PageLimit`] and [`CacheError::TableTooSmall`].
    pub fn new(pattern: Pattern, limits: CacheLimits, evict: bool) -> Result<Self, CacheError> {
        todo!()
    }

    /// The pattern whose keys are kept.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// How large the cache may become.
    pub fn limits(&self) -> CacheLimits {
        self.limits
    }

    /// Whether pages are freed once no later query attends their block.
    pub fn evicts(&self) -> bool {
        self.evict
    }

    /// An empty sequence.
    pub fn add(&mut self) -> SequenceId {
        todo!()
    }

    /// A sequence that begins with the tokens of another. They share pages; each pays for what it appends.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`] and [`CacheError::OpenStep`].
    pub fn fork(&mut self, of: SequenceId) -> Result<SequenceId, CacheError> {
        todo!()
    }

    /// Frees a sequence's pages and forgets it, also within a step.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`].
    pub fn remove(&mut self, sequence: SequenceId) -> Result<(), CacheError> {
        todo!()
    }

    /// Frees a sequence's pages and makes it empty, also within a step.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`].
    pub fn reset(&mut self, sequence: SequenceId) -> Result<(), CacheError> {
        todo!()
    }

    /// Tokens of a sequence, those of a step that is not committed included.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`].
    pub fn tokens(&self, sequence: SequenceId) -> Result<usize, CacheError> {
        todo!()
    }

    /// Appends tokens to sequences, and finds pages for them. Nothing changes where it fails.
    ///
    /// The step is to be carried out and [`commit`](Self::commit)ted before the sequences are appended to again. One that
    /// cannot be carried out leaves them without keys: [`reset`](Self::reset) or [`remove`](Self::remove) them.
    ///
    /// # Errors
    /// [`CacheError::NoItems`], [`CacheError::UnknownSequence`], [`CacheError::DuplicateSequence`],
    /// [`CacheError::OpenStep`], [`CacheError::TooLong`], [`CacheError::Rows`], [`CacheError::Words`] and
    /// [`CacheError::OutOfPages`].
    pub fn begin(&mut self, appends: &[Append]) -> Result<Step, CacheError> {
        todo!()
    }

    /// Ends a step: forgets the blocks that no later query attends, and frees their pages where the cache evicts. Sequences
    /// that were removed or reset since the step began are left alone.
    pub fn commit(&mut self, step: &Step) {
        todo!()
    }

    /// The blocks of a sequence's key/value head that later queries need, ascending, those of a step that is not committed
    /// included.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`].
    ///
    /// # Panics
    /// If the pattern has no such head.
    pub fn entries(&self, sequence: SequenceId, kv_head: usize) -> Result<&[Entry], CacheError> {
        todo!()
    }

    /// Pages that sequences hold. A page that several share counts once.
    pub fn used_pages(&self) -> usize {
        todo!()
    }

    /// Pages that a pool must have for all steps so far. It never shrinks.
    pub fn num_pages(&self) -> usize {
        todo!()
    }

    /// Pages of one sequence of `tokens` tokens between steps, by the retention rule: the blocks that the queries after
    /// it attend, and the last one where it is filled in part. Takes time in proportion to its blocks.
    pub fn predicted_pages(&self, tokens: usize) -> usize {
        todo!()
    }

    /// Pages of one sequence of `tokens` tokens without eviction.
    pub fn full_pages(&self, tokens: usize) -> usize {
        todo!()
    }

    /// Entries that a list of a table has room for: no step of a sequence of at most `max_tokens` tokens has more.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}
