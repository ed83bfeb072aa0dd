//! The blocks of a sequence that later queries need, and their pages: a list for each key/value head.

use s2_attention_pattern::Pattern;

/// A block of a key/value head, and the page that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The absolute key block.
    pub block: u32,
    /// The page.
    pub page: u32,
    /// The first query block from which the block is never attended again; [`NEVER`] where that does not end.
    pub(super) released_at: u32,
}

/// `released_at` of blocks that are needed for ever.
const NEVER: u32 = u32::MAX;

/// [`Pattern::released_at`], kept with an entry so that dropping blocks takes a comparison each.
pub(super) fn released_at(pattern: &Pattern, kv_head: usize, block: usize) -> u32 {
    // Blocks lie below 2^31, and a table below 2^16.
    let at = pattern.released_at(kv_head, block);
    at.map_or(NEVER, |at| at as u32)
}

impl Entry {
    /// Whether a sequence needs the block between two steps, where its next token comes to block `next`: a later query
    /// attends it, or it is still being filled.
    pub(super) fn is_needed(&self, next: usize) -> bool {
        self.released_at as usize > next || self.block as usize == next
    }
}

/// A list for each key/value head, ascending by block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lists(pub(super) Vec<Vec<Entry>>);

impl Lists {
    /// Empty lists.
    pub(super) fn new(kv_heads: usize) -> Self {
        Self(vec![Vec::new(); kv_heads])
    }

    /// The entries of all heads.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().flatten()
    }

    /// The lists without what is not needed where the next token comes to block `next`, and the pages of that.
    pub(super) fn divide(&self, next: usize) -> (Self, Vec<u32>) {
        let mut pages = Vec::new();
        let lists = self.0.iter().map(|list| {
            let (kept, dropped): (Vec<Entry>, Vec<Entry>) =
                list.iter().partition(|entry| entry.is_needed(next));
            pages.extend(dropped.iter().map(|entry| entry.page));
            kept
        });
        (Self(lists.collect()), pages)
    }
}
