//! Which page holds which block of which sequence, on the host.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use s2_attention_pattern::Pattern;

use super::capacity::capacity;
use super::lists::Lists;
use super::pages::{MAX_PAGES, Pages};
use super::problem::{check_causal, check_max_tokens};
use super::{CacheError, Entry};

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
    pub(super) pattern: Pattern,
    pub(super) limits: CacheLimits,
    pub(super) evict: bool,
    pub(super) capacity: usize,
    pub(super) pages: Pages,
    pub(super) sequences: BTreeMap<SequenceId, Sequence>,
    /// Sequences and steps so far.
    added: u64,
    pub(super) begun: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub tokens: usize,
    /// Shared with the steps that read it, and with forks until one of them grows.
    pub lists: Arc<Lists>,
    /// Pages of blocks that no list holds: those that a cache without eviction keeps.
    pub unlisted: Vec<u32>,
    /// The step that it is in.
    pub open: Option<u64>,
}

impl Sequence {
    fn new(kv_heads: usize) -> Self {
        Self {
            tokens: 0,
            lists: Arc::new(Lists::new(kv_heads)),
            unlisted: Vec::new(),
            open: None,
        }
    }

    /// Each page that it holds, once.
    fn pages(&self) -> impl Iterator<Item = u32> {
        let listed = self.lists.entries().map(|entry| entry.page);
        listed.chain(self.unlisted.iter().copied())
    }
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
        check_causal(&pattern)?;
        let max_tokens = limits.max_tokens;
        check_max_tokens(max_tokens)?;
        let page_limit = limits.pages.unwrap_or(MAX_PAGES);
        if !(1..=MAX_PAGES).contains(&page_limit) {
            return Err(CacheError::PageLimit {
                seen: page_limit,
                accepted: MAX_PAGES,
            });
        }
        let blocks = max_tokens.div_ceil(pattern.block_size());
        if let Some((q_blocks, kv_blocks)) = pattern.max_blocks()
            && blocks > q_blocks.min(kv_blocks)
        {
            return Err(CacheError::TableTooSmall {
                max_tokens,
                seen: blocks,
                accepted: q_blocks.min(kv_blocks),
            });
        }
        Ok(Self {
            capacity: capacity(&pattern, max_tokens),
            pattern,
            limits,
            evict,
            pages: Pages::new(page_limit),
            sequences: BTreeMap::new(),
            added: 0,
            begun: 0,
        })
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
        self.insert(Sequence::new(self.pattern.num_kv_heads()))
    }

    /// A sequence that begins with the tokens of another. They share pages; each pays for what it appends.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`] and [`CacheError::OpenStep`].
    pub fn fork(&mut self, of: SequenceId) -> Result<SequenceId, CacheError> {
        let sequence = self.sequence(of)?;
        if sequence.open.is_some() {
            return Err(CacheError::OpenStep { sequence: of });
        }
        let fork = sequence.clone();
        for page in fork.pages() {
            self.pages.hold(page);
        }
        Ok(self.insert(fork))
    }

    /// Frees a sequence's pages and forgets it, also within a step.
    ///
    /// The open step still names these pages, and the next [`begin`](Self::begin) may give them to others: what the open step
    /// writes has to be written before that, or not at all.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`].
    pub fn remove(&mut self, sequence: SequenceId) -> Result<(), CacheError> {
        let removed = self.sequences.remove(&sequence);
        let removed = removed.ok_or(CacheError::UnknownSequence { sequence })?;
        for page in removed.pages() {
            self.pages.release(page);
        }
        Ok(())
    }

    /// Frees a sequence's pages and makes it empty, also within a step: see [`remove`](Self::remove).
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`].
    pub fn reset(&mut self, sequence: SequenceId) -> Result<(), CacheError> {
        self.remove(sequence)?;
        let empty = Sequence::new(self.pattern.num_kv_heads());
        self.sequences.insert(sequence, empty);
        Ok(())
    }

    /// Tokens of a sequence, those of a step that is not committed included.
    ///
    /// # Errors
    /// [`CacheError::UnknownSequence`].
    pub fn tokens(&self, sequence: SequenceId) -> Result<usize, CacheError> {
        Ok(self.sequence(sequence)?.tokens)
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
        Ok(&self.sequence(sequence)?.lists.0[kv_head])
    }

    /// Pages that sequences hold. A page that several share counts once.
    pub fn used_pages(&self) -> usize {
        self.pages.used()
    }

    /// Pages that a pool must have for all steps so far. It never shrinks.
    pub fn num_pages(&self) -> usize {
        self.pages.count()
    }

    /// Pages of one sequence of `tokens` tokens between steps, by the retention rule: the blocks that the queries after
    /// it attend, and the last one where it is filled in part. Takes time in proportion to its blocks.
    ///
    /// # Errors
    /// [`CacheError::Length`]: of blocks behind the longest sequence, a table may say nothing.
    pub fn predicted_pages(&self, tokens: usize) -> Result<usize, CacheError> {
        let accepted = self.limits.max_tokens;
        if tokens > accepted {
            return Err(CacheError::Length {
                seen: tokens,
                accepted,
            });
        }
        let block_size = self.pattern.block_size();
        let next = tokens / block_size;
        let part = usize::from(!tokens.is_multiple_of(block_size));
        let pages = (0..self.pattern.num_kv_heads())
            .map(|kv_head| self.pattern.retained(kv_head, next).count() + part);
        Ok(pages.sum())
    }

    /// Pages of one sequence of `tokens` tokens without eviction, of any length; `usize::MAX` where there are more.
    pub fn full_pages(&self, tokens: usize) -> usize {
        let blocks = tokens.div_ceil(self.pattern.block_size());
        blocks.saturating_mul(self.pattern.num_kv_heads())
    }

    /// Entries that a list of a table has room for: no step of a sequence of at most `max_tokens` tokens has more.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn insert(&mut self, sequence: Sequence) -> SequenceId {
        let id = SequenceId(self.added);
        self.added += 1;
        self.sequences.insert(id, sequence);
        id
    }

    pub(super) fn sequence(&self, id: SequenceId) -> Result<&Sequence, CacheError> {
        let sequence = self.sequences.get(&id);
        sequence.ok_or(CacheError::UnknownSequence { sequence: id })
    }
}
