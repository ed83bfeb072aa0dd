//! What the kernels that own queries share: the tokens of their rows.

use cubecl::prelude::*;

use super::rows::{owned_row, staged_row};
use super::size::CubeSize;
use crate::cube::tile::Tile;
use crate::cube::walk::{NONE, QueryTile, Span};

/// Tokens of this unit's rows that have a place in the results.
#[cube]
pub(super) fn own_tokens(
    own: &QueryTile,
    index: &[i32],
    #[comptime] tile: Tile,
    #[comptime] size: CubeSize,
) -> Array<i32> {
    let mut tokens = Array::<i32>::new(comptime!(size.rows()));
    #[unroll]
    for i in 0..comptime!(size.rows()) {
        let row = owned_row(i, size);
        tokens[i] = own.rows.token(index, row, comptime!(tile.in_order()));
    }
    tokens
}

/// Those of `tokens` that are queries, not padding.
#[cube]
pub(super) fn queries_of(
    tokens: &Array<i32>,
    span: &Span,
    #[comptime] size: CubeSize,
) -> Array<i32> {
    let mut queries = Array::<i32>::new(comptime!(size.rows()));
    #[unroll]
    for i in 0..comptime!(size.rows()) {
        queries[i] = select(tokens[i] < span.q_end, tokens[i], NONE);
    }
    queries
}

/// The queries that this unit stages of rows of `dim` elements.
#[cube]
pub(super) fn staged_queries(
    own: &QueryTile,
    index: &[i32],
    #[comptime] dim: usize,
    #[comptime] tile: Tile,
    #[comptime] size: CubeSize,
) -> Array<i32> {
    let count = comptime!(size.staged(size.owned, dim));
    let mut queries = Array::<i32>::new(count);
    #[unroll]
    for n in 0..count {
        let row = staged_row(n, comptime!(size.slice(dim)), size);
        let token = own.rows.token(index, row, comptime!(tile.in_order()));
        queries[n] = select(token < own.span.q_end, token, NONE);
    }
    queries
}
