//! Where the words of a step's table lie: the lengths of its items, and the pages of their keys.
//!
//! | section | words |
//! |---|---|
//! | items | for each `q_row, q_len, kv_len`, in tokens |
//! | counts | for each item and key/value head the number of its entries |
//! | entries | for each item and key/value head room for `capacity` entries `block, page`, ascending by block |

/// Words of an item: `q_row`, `q_len` and `kv_len`.
pub const ITEM_WORDS: usize = 3;
/// Words of an entry: `block` and `page`.
pub const ENTRY_WORDS: usize = 2;

/// The sizes of a table, which say where each of its words lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableLayout {
    /// Sequences of the step.
    pub items: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Entries that a list has room for.
    pub capacity: usize,
}

impl TableLayout {
    /// Words of the table.
    pub fn len(&self) -> usize {
        self.entry(self.items, 0, 0)
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// The words of an item: the first row of its queries, their number, and that of its keys, the new ones included.
    pub fn item(&self, item: usize) -> usize {
        item * ITEM_WORDS
    }

    /// The number of entries of an item's key/value head.
    pub fn count(&self, item: usize, kv_head: usize) -> usize {
        self.items * ITEM_WORDS + item * self.kv_heads + kv_head
    }

    /// An entry of an item's key/value head: its block, and the page that holds it.
    pub fn entry(&self, item: usize, kv_head: usize, entry: usize) -> usize {
        self.count(self.items, 0)
            + ((item * self.kv_heads + kv_head) * self.capacity + entry) * ENTRY_WORDS
    }
}
