//! Rows of a step to pages and back.

use rayon::prelude::*;

use super::table::Table;
use super::{Rows, RowsMut};
use crate::cache::{PoolShape, TableLayout};

/// Writes a step's new keys (or values) to their pages: `rows [1, kv_heads, num_rows, width]`, strided, to
/// `pages [pages, block, width]`. Rows of no item, and of blocks without a page, are skipped.
///
/// # Panics
/// If a slice is smaller than its sizes, or the table names what is not there.
pub fn cache_write<T: Copy>(
    pool: &PoolShape,
    layout: &TableLayout,
    words: &[i32],
    rows: Rows<'_, T>,
    num_rows: usize,
    pages: &mut [T],
) {
    check_rows(&rows, [1, layout.kv_heads, num_rows, pool.width]);
    check_pool(pool, pages);
    let table = Table::new(layout, words, num_rows, pool.pages);
    let (block_size, width) = (pool.block_size, pool.width);
    for (index, item) in table.items() {
        for kv_head in 0..layout.kv_heads {
            // New tokens lie in the last blocks.
            for nth in (0..table.count(index, kv_head)).rev() {
                let listed = table.entry(index, kv_head, nth);
                let start = listed.block * block_size;
                let (first, end) = (
                    start.max(item.past()),
                    (start + block_size).min(item.kv_len),
                );
                if first >= end {
                    break;
                }
                let source = rows.from(0, kv_head, item.q_row + first - item.past());
                let page = &mut pages[listed.page * pool.page_len()..][..pool.page_len()];
                let targets = page[(first - start) * width..].chunks_exact_mut(width);
                for (token, target) in targets.take(end - first).enumerate() {
                    target.copy_from_slice(&source[token * rows.row_stride()..][..width]);
                }
            }
        }
    }
}

/// Lays the keys (or values) of an item next to each other: `out [1, kv_heads, kv_len, width]`, strided. Those before the
/// step come from the pages of listed blocks, the new ones from `rows [1, kv_heads, num_rows, width]`. What is in blocks that
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
    check_rows(&rows, [1, layout.kv_heads, num_rows, pool.width]);
    check_pool(pool, pages);
    let table = Table::new(layout, words, num_rows, pool.pages);
    let (index, item) = (item, table.item(item));
    let (block_size, width) = (pool.block_size, pool.width);
    out.check("out", [1, layout.kv_heads, item.kv_len, width]);
    (0..layout.kv_heads).into_par_iter().for_each(|kv_head| {
        // SAFETY: each head is one thread's, and the borrow of its row ends with the copy.
        let target = |token| unsafe { out.row_mut(0, kv_head, token, width) };
        for listed in table.list(index, kv_head) {
            let start = listed.block * block_size;
            let end = (start + block_size).min(item.past());
            let page = &pages[listed.page * pool.page_len()..][..pool.page_len()];
            for (token, source) in (start..end).zip(page.chunks_exact(width)) {
                target(token).copy_from_slice(source);
            }
        }
        if item.q_len > 0 {
            let source = rows.from(0, kv_head, item.q_row);
            for token in 0..item.q_len {
                let source = &source[token * rows.row_stride()..][..width];
                target(item.past() + token).copy_from_slice(source);
            }
        }
    });
}

/// Copies pages, `(from, to)`: [`Step::copies`](crate::cache::Step::copies).
///
/// # Panics
/// If `pages` is smaller than the pool, or has no such page.
pub fn cache_copy<T: Copy>(pool: &PoolShape, copies: &[(usize, usize)], pages: &mut [T]) {
    check_pool(pool, pages);
    let page_len = pool.page_len();
    for &(from, to) in copies {
        assert!(
            from < pool.pages && to < pool.pages,
            "page {from} to page {to} of {}",
            pool.pages
        );
        pages.copy_within(from * page_len..(from + 1) * page_len, to * page_len);
    }
}

/// A step of finished sequences has no rows.
fn check_rows<T>(rows: &Rows<'_, T>, sizes: [usize; 4]) {
    if sizes[2] > 0 {
        rows.check("rows", sizes);
    }
}

pub(super) fn check_pool<T>(pool: &PoolShape, pages: &[T]) {
    assert!(
        pages.len() >= pool.len(),
        "{pool:?} has {} elements, got {}",
        pool.len(),
        pages.len()
    );
}
