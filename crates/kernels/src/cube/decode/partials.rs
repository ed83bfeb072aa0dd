//! What cubes leave of the rows they computed over a part of a list, until all parts are combined.
//!
//! A record for each split, row and query head: the sums of weighted values, then maximum, sum of weights, and the sum that values
//! are divided by; and one number more, which keeps records at places of whole vectors.

use cubecl::prelude::*;

use super::sizes::Sizes;
use super::tile::{GroupRows, Row};

/// Numbers of a record behind its values.
pub(in crate::cube) const STATS: usize = 4;

/// The first number of the record of a row that exists.
#[cube]
pub(in crate::cube) fn record_at(
    sizes: &Sizes,
    split: usize,
    rows: &GroupRows,
    row: &Row,
    #[comptime] value_dim: usize,
) -> usize {
    let first = select(
        sizes.item_rows == 0u32,
        usize::cast_from(rows.item.row),
        rows.number * sizes.item_rows as usize,
    );
    let row_at = split * sizes.record_rows as usize + first + usize::cast_from(row.token);
    let heads = (sizes.kv_heads * sizes.group) as usize;
    (row_at * heads + row.head) * comptime!(value_dim + STATS)
}

/// Writes what follows the values of the record that begins at `at`.
#[cube]
pub(in crate::cube) fn put_stats(
    partials: &mut [f32],
    at: usize,
    maximum: f32,
    sum: f32,
    whole: f32,
    #[comptime] value_dim: usize,
) {
    partials[at + value_dim] = maximum;
    partials[at + comptime!(value_dim + 1)] = sum;
    partials[at + comptime!(value_dim + 2)] = whole;
}
