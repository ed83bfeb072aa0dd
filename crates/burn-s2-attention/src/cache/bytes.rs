//! What a cache takes, and would take.

use s2_attention_kernels::cache::BlockTables;

use super::KvCache;

impl KvCache {
    /// Bytes in use: pages that sequences hold, in all layers, and the words of each sequence's tables. Pages that forks share
    /// count once.
    pub fn memory_bytes(&self) -> usize {
        self.bytes(self.num_sequences(), BlockTables::used_pages)
    }

    /// Bytes of `tokens` tokens of one sequence between two steps, by the pattern's rule of what later tokens attend.
    pub fn predicted_bytes(&self, tokens: usize) -> usize {
        self.bytes(1, |tables| tables.predicted_pages(tokens))
    }

    /// Bytes of `tokens` tokens of one sequence in a cache that keeps everything.
    pub fn full_bytes(&self, tokens: usize) -> usize {
        self.bytes(1, |tables| tables.full_pages(tokens))
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

    fn bytes(&self, sequences: usize, pages: impl Fn(&BlockTables) -> usize) -> usize {
        let pages: Vec<usize> = (self.groups.iter())
            .map(|group| pages(&group.tables))
            .collect();
        let pools = self
            .pools
            .iter()
            .map(|(group, pool)| pages[*group] * pool.page_bytes());
        let tables = self
            .groups
            .iter()
            .map(|group| sequences * group.sequence_table_bytes());
        pools.chain(tables).sum()
    }
}
