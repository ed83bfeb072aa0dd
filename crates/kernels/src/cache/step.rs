//! One step: new tokens of some sequences, and the pages that hold their keys.

use std::sync::Arc;

use super::lists::Lists;
use super::{ITEM_WORDS, SequenceId, TableLayout};

/// An item with at most this many new tokens is decoded; one with more is a prefill.
pub const MAX_DECODE_TOKENS: usize = 16;

/// New tokens of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Append {
    /// The sequence.
    pub sequence: SequenceId,
    /// Its new tokens; 0 keeps its place in a batch whose table must not change its size.
    pub tokens: usize,
}

/// How the new tokens of an item attend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// At most [`MAX_DECODE_TOKENS`] tokens. Each of their blocks has a page, so that `decode` reads pages only.
    Decode,
    /// More tokens. Only those of their blocks have pages that later steps need; `cache_read` lays the old keys before the
    /// new ones for an ordinary attention call.
    Prefill,
}

impl StepKind {
    /// The kind of an item of `tokens` new tokens.
    pub(super) fn of(tokens: usize) -> Self {
        if tokens <= MAX_DECODE_TOKENS {
            Self::Decode
        } else {
            Self::Prefill
        }
    }
}

/// One sequence of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepItem {
    /// The sequence.
    pub sequence: SequenceId,
    /// The row of its first new token in the step's `q`, `k` and `v`.
    pub q_row: usize,
    /// Its new tokens.
    pub q_len: usize,
    /// Its tokens, the new ones included. The new ones stand at the positions `kv_len - q_len..kv_len`.
    pub kv_len: usize,
    /// How the new tokens attend.
    pub kind: StepKind,
}

/// New tokens of some sequences, appended by [`BlockTables::begin`](super::BlockTables::begin).
///
/// Rows of `q [rows, heads, head_dim]`, `k` and `v` are packed: those of the first item, of the second, and so on.
#[derive(Debug, Clone)]
pub struct Step {
    pub(super) id: u64,
    pub(super) items: Vec<StepItem>,
    /// The lists of each item.
    pub(super) lists: Vec<Arc<Lists>>,
    pub(super) copies: Vec<(usize, usize)>,
    pub(super) kv_heads: usize,
    pub(super) capacity: usize,
}

impl Step {
    /// The sequences, in the order in which they were given.
    pub fn items(&self) -> &[StepItem] {
        &self.items
    }

    /// New tokens of all items: the rows of `q`, `k` and `v`.
    pub fn rows(&self) -> usize {
        self.items.iter().map(|item| item.q_len).sum()
    }

    /// Pages to copy, `(from, to)`, in every pool before anything is written: partly filled blocks that other sequences
    /// share. No page is on both sides, so that the order is free.
    pub fn copies(&self) -> &[(usize, usize)] {
        &self.copies
    }

    /// The indices of the items of a kind, ascending.
    pub fn items_of(&self, kind: StepKind) -> Vec<usize> {
        let items = self.items.iter().enumerate();
        let of_kind = items.filter(|(_, item)| item.kind == kind);
        of_kind.map(|(index, _)| index).collect()
    }

    /// New tokens of the longest item that is decoded, or 1 where none has any: what a call is
    /// [made for](super::CacheShape::decode_tokens).
    pub fn decode_tokens(&self) -> usize {
        decode_tokens(&self.items)
    }

    /// Where the words of the whole table lie.
    pub fn layout(&self) -> TableLayout {
        self.layout_of(self.items.len())
    }

    /// The words of the whole table, [`layout`](Self::layout)`().len()` of them.
    pub fn words(&self) -> Vec<i32> {
        let all: Vec<usize> = (0..self.items.len()).collect();
        self.words_of(&all)
    }

    /// Where the words of a table of `items` items lie.
    pub fn layout_of(&self, items: usize) -> TableLayout {
        TableLayout {
            items,
            kv_heads: self.kv_heads,
            capacity: self.capacity,
        }
    }

    /// The words of a table of some items only, in that order. Rows keep their numbers: `q_row` counts in the rows of the
    /// whole step.
    ///
    /// # Panics
    /// If an item is not below the number of [`items`](Self::items).
    pub fn words_of(&self, items: &[usize]) -> Vec<i32> {
        let layout = self.layout_of(items.len());
        let mut words = vec![0; layout.len()];
        for (place, &item) in items.iter().enumerate() {
            write(
                &mut words,
                layout.item(place),
                item_words(&self.items[item]),
            );
            for (kv_head, list) in self.lists[item].0.iter().enumerate() {
                words[layout.count(place, kv_head)] = list.len() as i32;
                for (nth, entry) in list.iter().enumerate() {
                    let at = layout.entry(place, kv_head, nth);
                    write(&mut words, at, [entry.block as i32, entry.page as i32]);
                }
            }
        }
        words
    }

    /// The first words of the table, those of the items: all that changes where [`same_lists`](Self::same_lists) holds.
    pub fn item_words(&self) -> Vec<i32> {
        self.items.iter().flat_map(item_words).collect()
    }

    /// Whether the table has the same sequences in the same places as that of an earlier step, with the same entries: most
    /// tokens neither fill a block nor begin one.
    pub fn same_lists(&self, earlier: &Step) -> bool {
        // A list is never changed while a step holds it.
        let pairs = self.lists.iter().zip(&earlier.lists);
        self.lists.len() == earlier.lists.len() && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// See [`Step::decode_tokens`].
pub fn decode_tokens(items: &[StepItem]) -> usize {
    let decoded = items.iter().filter(|item| item.kind == StepKind::Decode);
    decoded.map(|item| item.q_len).max().unwrap_or(1).max(1)
}

/// `q_row, q_len, kv_len`. Lengths and pages are below 2^31, which `begin` has checked.
fn item_words(item: &StepItem) -> [i32; ITEM_WORDS] {
    [item.q_row, item.q_len, item.kv_len].map(|tokens| tokens as i32)
}

fn write<const N: usize>(words: &mut [i32], at: usize, values: [i32; N]) {
    words[at..at + N].copy_from_slice(&values);
}
