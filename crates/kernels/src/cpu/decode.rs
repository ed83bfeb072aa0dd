//! Attention of a few new tokens a sequence over pages.

use super::{Real, Rows, RowsMut, Stored};
use crate::cache::CacheProblem;

/// Writes `out [1, h, rows, dv]`, strided, and `lse` (`[rows, h]`, contiguous, natural logarithm) of the items of a table:
/// each query attends the keys of listed blocks that the pattern keeps for it, up to its own position.
///
/// `k_pages` is `[pages, block, d]` and `v_pages` `[pages, block, dv]`, contiguous. A query that attends nothing gets an
/// output of 0 and an lse of `-inf`. Rows of no item are left as they are.
///
/// # Panics
/// If a slice is smaller than the shapes of `problem`, rows of `out` overlap, or the table names what is not there.
pub fn decode<F: Real, T: Stored<F>>(
    problem: &CacheProblem,
    q: Rows<'_, F>,
    k_pages: &[T],
    v_pages: &[T],
    words: &[i32],
    out: RowsMut<'_, F>,
    lse: &mut [F],
) {
    todo!()
}
