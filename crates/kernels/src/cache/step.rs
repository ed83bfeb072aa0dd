//! One step: new tokens of some sequences, and the pages that hold their keys.

use std::sync::Arc;

use super::lists::Lists;
use super::{SequenceId, TableLayout};

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
        todo!()
    }

    /// New tokens of all items: the rows of `q`, `k` and `v`.
    pub fn rows(&self) -> usize {
        todo!()
    }

    /// Pages to copy, `(from, to)`, in every pool before anything is written: partly filled blocks that other sequences
    /// share. No page is on both sides, so that the order is free.
    pub fn copies(&self) -> &[(usize, usize)] {
        todo!()
    }

    /// The indices of the items of a kind, ascending.
    pub fn items_of(&self, kind: StepKind) -> Vec<usize> {
        todo!()
    }

    /// Where the words of the whole table lie.
    pub fn layout(&self) -> TableLayout {
        todo!()
    }

    /// The words of the whole table, [`layout`](Self::layout)`().len()` of them.
    pub fn words(&self) -> Vec<i32> {
        todo!()
    }

    /// Where the words of a table of `items` items lie.
    pub fn layout_of(&self, items: usize) -> TableLayout {
        todo!()
    }

    /// The words of a table of some items only, in that order. Rows keep their numbers: `q_row` counts in the rows of the
    /// whole step.
    ///
    /// # Panics
    /// If an item is not below the number of [`items`](Self::items).
    pub fn words_of(&self, items: &[usize]) -> Vec<i32> {
        todo!()
    }

    /// The first words of the table, those of the items: all that changes where [`same_lists`](Self::same_lists) holds.
    pub fn item_words(&self) -> Vec<i32> {
        todo!()
    }

    /// Whether the table has the same sequences in the same places as that of an earlier step, with the same entries: most
    /// tokens neither fill a block nor begin one.
    pub fn same_lists(&self, earlier: &Step) -> bool {
        todo!()
    }
}
