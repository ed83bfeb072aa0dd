//! The words of a step's table, as numbers.

use crate::cache::{ITEM_WORDS, TableLayout};

/// A table whose words have been checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    layout: TableLayout,
    words: &'a [i32],
}

/// The lengths of an item, in tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub q_row: usize,
    pub q_len: usize,
    pub kv_len: usize,
}

impl Item {
    /// The position of its first new token, which is the number of tokens before it.
    pub(super) fn past(&self) -> usize {
        self.kv_len - self.q_len
    }
}

/// A key block and the page that holds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pub block: usize,
    pub page: usize,
}

impl<'a> Table<'a> {
    /// # Panics
    /// If words are missing, or name rows or pages that are not there, a row twice, or blocks that do not ascend.
    pub(super) fn new(
        layout: &TableLayout,
        words: &'a [i32],
        num_rows: usize,
        pages: usize,
    ) -> Self {
        assert!(
            words.len() >= layout.len(),
            "a table of {layout:?} has {} words, got {}",
            layout.len(),
            words.len()
        );
        let table = Self {
            layout: *layout,
            words,
        };
        table.check_rows(num_rows);
        for item in 0..layout.items {
            for kv_head in 0..layout.kv_heads {
                table.check_list(item, kv_head, pages);
            }
        }
        table
    }

    pub(super) fn item(&self, item: usize) -> Item {
        let at = self.layout.item(item);
        Item {
            q_row: self.words[at] as usize,
            q_len: self.words[at + 1] as usize,
            kv_len: self.words[at + 2] as usize,
        }
    }

    pub(super) fn items(&self) -> impl Iterator<Item = (usize, Item)> {
        (0..self.layout.items).map(|item| (item, self.item(item)))
    }

    /// Entries of an item's key/value head.
    pub(super) fn count(&self, item: usize, kv_head: usize) -> usize {
        self.words[self.layout.count(item, kv_head)] as usize
    }

    /// An entry of an item's key/value head.
    pub(super) fn entry(&self, item: usize, kv_head: usize, nth: usize) -> Listed {
        let at = self.layout.entry(item, kv_head, nth);
        Listed {
            block: self.words[at] as usize,
            page: self.words[at + 1] as usize,
        }
    }

    /// The entries of an item's key/value head, ascending by block.
    pub(super) fn list(&self, item: usize, kv_head: usize) -> impl Iterator<Item = Listed> {
        (0..self.count(item, kv_head)).map(move |nth| self.entry(item, kv_head, nth))
    }

    fn check_rows(&self, num_rows: usize) {
        for item in 0..self.layout.items {
            let words = &self.words[self.layout.item(item)..][..ITEM_WORDS];
            assert!(
                words.iter().all(|&word| word >= 0) && words[1] <= words[2],
                "item {item}: q_row, q_len and kv_len are {words:?}"
            );
        }
        let items = self.items().filter(|(_, item)| item.q_len > 0);
        let mut rows: Vec<(usize, usize)> = items
            .map(|(_, item)| (item.q_row, item.q_row + item.q_len))
            .collect();
        rows.sort_unstable();
        let disjoint = rows.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        let end = rows.last().map_or(0, |last| last.1);
        assert!(
            disjoint && end <= num_rows,
            "items own the rows {rows:?} of {num_rows}"
        );
    }

    fn check_list(&self, item: usize, kv_head: usize, pages: usize) {
        let count = self.words[self.layout.count(item, kv_head)];
        assert!(
            (0..=self.layout.capacity as i32).contains(&count),
            "item {item}, key/value head {kv_head}: {count} entries; there is room for {}",
            self.layout.capacity
        );
        let mut least = 0;
        for nth in 0..count as usize {
            let at = self.layout.entry(item, kv_head, nth);
            let (block, page) = (self.words[at], self.words[at + 1]);
            assert!(
                block >= least && page >= 0 && (page as usize) < pages,
                "item {item}, key/value head {kv_head}: block {block} on page {page} of {pages}; blocks ascend"
            );
            least = block.saturating_add(1);
        }
    }
}
