//! Lengths and pages: the words of a step's table, as kernels find them.

use cubecl::prelude::*;

use crate::cache::{ENTRY_WORDS, ITEM_WORDS, TableLayout};

/// Where the words lie, whose places grow by as much from one item, list or entry to the next. By [`TableLayout`], which says
/// where each is.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Sections {
    /// The first count.
    pub(in crate::cube) counts: u32,
    /// The first entry.
    pub(in crate::cube) entries: u32,
    /// Words of a list.
    pub(in crate::cube) list: u32,
}

impl Sections {
    pub(in crate::cube) fn of(layout: &TableLayout) -> Self {
        let (counts, entries) = (layout.count(0, 0), layout.entry(0, 0, 0));
        // Words are far below what 32 bits count: a call is refused that has more.
        Self {
            counts: counts as u32,
            entries: entries as u32,
            list: (layout.capacity * ENTRY_WORDS) as u32,
        }
    }

    pub(in crate::cube) fn arg(self) -> SectionsLaunch {
        SectionsLaunch::new(self.counts, self.entries, self.list)
    }
}

/// New tokens of a sequence: those of the queries `row ..`, of `kv_len` in all.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Item {
    pub(in crate::cube) row: i32,
    pub(in crate::cube) len: i32,
    pub(in crate::cube) kv_len: i32,
}

#[cube]
pub(in crate::cube) fn item_at(table: &[i32], item: usize) -> Item {
    let at = item * ITEM_WORDS;
    Item {
        row: table[at],
        len: table[at + 1usize],
        kv_len: table[at + 2usize],
    }
}

/// The list of an item's key/value head: ascending by block.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct PageList {
    first: usize,
    pub(in crate::cube) count: i32,
}

/// List number `list`, counted over the key/value heads of all items.
#[cube]
pub(in crate::cube) fn page_list(table: &[i32], list: usize, sections: &Sections) -> PageList {
    PageList {
        first: sections.entries as usize + list * sections.list as usize,
        count: table[sections.counts as usize + list],
    }
}

#[cube]
impl PageList {
    pub(in crate::cube) fn block(&self, table: &[i32], entry: i32) -> i32 {
        table[self.first + usize::cast_from(entry) * ENTRY_WORDS]
    }

    pub(in crate::cube) fn page(&self, table: &[i32], entry: i32) -> i32 {
        table[self.first + usize::cast_from(entry) * ENTRY_WORDS + 1usize]
    }

    /// The page of a block, or -1. `last` is the last block of the sequence: from `block` on to it there are as many entries
    /// at most.
    pub(in crate::cube) fn find(&self, table: &[i32], block: i32, last: i32) -> i32 {
        let mut low = max(self.count - 1 - (last - block), 0i32);
        let mut high = self.count;
        // The first entry that is not before the block.
        while low < high {
            let middle = (low + high) / 2;
            if self.block(table, middle) < block {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut page = (-1i32).runtime();
        if low < self.count && self.block(table, low) == block {
            page = self.page(table, low);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::Sections;
    use crate::cache::{ENTRY_WORDS, TableLayout};

    /// What kernels count is where the layout says.
    #[test]
    fn sections_are_those_of_the_layout() {
        for (items, kv_heads, capacity) in [(1, 1, 1), (3, 2, 5), (7, 8, 270)] {
            let layout = TableLayout {
                items,
                kv_heads,
                capacity,
            };
            let sections = Sections::of(&layout);
            for list in 0..items * kv_heads {
                let (item, kv_head) = (list / kv_heads, list % kv_heads);
                assert_eq!(layout.count(item, kv_head), sections.counts as usize + list);
                for entry in 0..capacity {
                    let first = sections.entries as usize + list * sections.list as usize;
                    let at = first + entry * ENTRY_WORDS;
                    assert_eq!(layout.entry(item, kv_head, entry), at);
                }
            }
        }
    }
}
