//! What the kernels that own queries share: the tokens of their rows.

use cubecl::prelude::*;

use super::tile::{ROWS, owned_row, staged, staged_row, vectors_of};
use crate::cube::tile::Tile;
use crate::cube::walk::{NONE, QueryTile, Span};

/// Tokens of this unit's rows that have a place in the results.
#[cube]
pub(super) fn own_tokens(own: &QueryTile, index: &[i32], #[comptime] tile: Tile) -> Array<i32> {
    let mut tokens = Array::<i32>::new(ROWS);
    #[unroll]
    for i in 0..ROWS {
        tokens[i] = own
            .rows
            .token(index, owned_row(i), comptime!(tile.in_order()));
    }
    tokens
}

/// Those of `tokens` that are queries, not padding.
#[cube]
pub(super) fn queries_of(tokens: &Array<i32>, span: &Span) -> Array<i32> {
    let mut queries = Array::<i32>::new(ROWS);
    #[unroll]
    for i in 0..ROWS {
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
) -> Array<i32> {
    let count = comptime!(staged(tile.rows, dim));
    let mut queries = Array::<i32>::new(count);
    #[unroll]
    for n in 0..count {
        let row = staged_row(n, comptime!(vectors_of(dim)));
        let token = own.rows.token(index, row, comptime!(tile.in_order()));
        queries[n] = select(token < own.span.q_end, token, NONE);
    }
    queries
}
