//! Rows of a step to pages and back.

use super::{Rows, RowsMut};
use crate::cache::{PoolShape, TableLayout};

/// Writes a step's new keys (or values) to their pages: `rows [1, kv_heads, rows, width]`, strided, to
/// `pages [pages, block, width]`. Rows of no item, and of blocks without a page, are skipped.
///
/// # Panics
/// If a slice is smaller than its sizes, or the table names what is not there.
pub fn cache_write<T: Copy + Send + Sync>(
    pool: &PoolShape,
    layout: &TableLayout,
    words: &[i32],
    rows: Rows<'_, T>,
    num_rows: usize,
    pages: &mut [T],
) {
    todo!()
}

/// Lays the keys (or values) of an item next to each other: `out [1, kv_heads, kv_len, width]`, strided. Those before the
/// step come from the pages of listed blocks, the new ones from `rows [1, kv_heads, rows, width]`. What is in blocks that
/// are not listed is left as it is: no query of the item attends it.
///
/// # Panics
/// If a slice is smaller than its sizes, rows of `out` overlap, or the table names what is not there.
#[allow(clippy::too_many_arguments)]
pub fn cache_read<T: Copy + Send + Sync>(
    pool: &PoolShape,
    layout: &TableLayout,
    words: &[i32],
    item: usize,
    pages: &[T],
    rows: Rows<'_, T>,
    num_rows: usize,
    out: RowsMut<'_, T>,
) {
    todo!()
}

/// Copies pages, `(from, to)`: [`Step::copies`](crate::cache::Step::copies).
///
/// # Panics
/// If `pages` is smaller than the pool, or has no such page.
pub fn cache_copy<T: Copy>(pool: &PoolShape, copies: &[(usize, usize)], pages: &mut [T]) {
    todo!()
}
