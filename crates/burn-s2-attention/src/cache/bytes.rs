//! What a cache takes, and would take.

use s2_attention_kernels::cache::{BlockTables, CacheError};

use super::KvCache;
use crate::S2AttentionError;

impl KvCache {
    /// Bytes in use: pages that sequences hold, in all layers, and the words of each sequence's tables. Pages that forks share
    /// count once.
    ///
    /// This is what stays from step to step. A part of a prompt that is not its first takes more while it is read: all keys and
    /// values up to it, next to each other, `kv_len * num_kv_heads * (head_dim + value_dim)` elements, for one layer at a time.
    /// Up to [`MAX_DECODE_TOKENS`](super::MAX_DECODE_TOKENS) new tokens of a sequence are decoded over the pages, and take none
    /// of that.
    pub fn memory_bytes(&self) -> usize {
        let pages = self.tables().map(BlockTables::used_pages);
        self.bytes(self.num_sequences(), pages.collect())
    }

    /// Bytes of `tokens` tokens of one sequence between two steps, by the pattern's rule of what later tokens attend: what
    /// [`memory_bytes`](Self::memory_bytes) will be.
    ///
    /// # Errors
    /// Of [`S2AttentionError::Cache`] more than `max_tokens`.
    pub fn try_predicted_bytes(&self, tokens: usize) -> Result<usize, S2AttentionError> {
        let pages = self.tables().map(|tables| tables.predicted_pages(tokens));
        Ok(self.bytes(1, pages.collect::<Result<_, CacheError>>()?))
    }

    /// Same as [`try_predicted_bytes`](Self::try_predicted_bytes).
    ///
    /// # Panics
    /// With the text of the error that [`try_predicted_bytes`](Self::try_predicted_bytes) returns.
    pub fn predicted_bytes(&self, tokens: usize) -> usize {
        self.try_predicted_bytes(tokens)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Bytes of `tokens` tokens of one sequence in a cache that keeps everything, of any length; `usize::MAX` where there are
    /// more.
    pub fn full_bytes(&self, tokens: usize) -> usize {
        let pages = self.tables().map(|tables| tables.full_pages(tokens));
        self.bytes(1, pages.collect())
    }

    /// Bytes that are allocated on the device: pages in use and not, and the tables and positions of the largest steps.
    pub fn reserved_bytes(&self) -> usize {
        let pools = self
            .pools
            .iter()
            .map(|(_, pool)| pool.pages() * pool.page_bytes());
        let tables = self.groups.iter().map(|group| group.table_bytes());
        pools.chain(tables).sum::<usize>() + self.positions.bytes()
    }

    fn tables(&self) -> impl Iterator<Item = &BlockTables> {
        self.groups.iter().map(|group| &group.tables)
    }

    /// Bytes of so many sequences that hold so many pages of each group.
    fn bytes(&self, sequences: usize, pages: Vec<usize>) -> usize {
        let pools = self
            .pools
            .iter()
            .map(|(group, pool)| pages[*group].saturating_mul(pool.page_bytes()));
        let tables = self
            .groups
            .iter()
            .map(|group| sequences * group.sequence_table_bytes());
        pools.chain(tables).fold(0, usize::saturating_add)
    }
}
