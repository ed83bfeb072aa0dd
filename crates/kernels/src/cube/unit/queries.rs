//! What the kernels that own queries share: their rows and place in the grid.

use cubecl::prelude::*;

use super::tile::{ROWS, owned_row, staged, staged_row, vectors_of};
use crate::cube::tile::Tile;
use crate::cube::walk::{NONE, RowWalk, Span, TokenRows, query_rows, row_walk, span};

/// The tile of queries of one cube. Grid: query tiles of all sequences and heads, the last tiles first.
#[derive(CubeType)]
pub(super) struct QueryTile {
    pub(super) head: usize,
    pub(super) kv_head: usize,
    pub(super) sequence: usize,
    pub(super) span: Span,
    pub(super) rows: TokenRows,
    pub(super) walk: RowWalk,
    /// Tokens of this unit's rows that have a place in the results.
    pub(super) tokens: Array<i32>,
    /// Those of them that are queries, not padding.
    pub(super) queries: Array<i32>,
}

#[cube]
pub(super) fn query_tile(
    index: &[i32],
    batch: u32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    #[comptime] tile: Tile,
) -> QueryTile {
    let cube = CUBE_POS as u32;
    let head = (cube % heads) as usize;
    let sequence = ((cube / heads) % batch) as usize;
    let tile_index = i32::cast_from(cube / heads / batch);
    let span = span(index, sequence);
    let rows = query_rows(
        &span,
        span.q_start + i32::cast_from(seq_q),
        tile_index,
        tile,
    );
    let walk = row_walk(index, (batch * 4u32) as usize, head, &rows, &span, tile);
    let mut tokens = Array::<i32>::new(ROWS);
    let mut queries = Array::<i32>::new(ROWS);
    #[unroll]
    for i in 0..ROWS {
        let token = rows.token(index, owned_row(i), comptime!(tile.in_order()));
        tokens[i] = token;
        queries[i] = select(token < span.q_end, token, NONE);
    }
    QueryTile {
        head,
        kv_head: head / (heads / kv_heads) as usize,
        sequence,
        span,
        rows,
        walk,
        tokens,
        queries,
    }
}

#[cube]
impl QueryTile {
    /// The queries that this unit stages of rows of `dim` elements.
    pub(super) fn staged(
        &self,
        index: &[i32],
        #[comptime] dim: usize,
        #[comptime] tile: Tile,
    ) -> Array<i32> {
        let count = comptime!(staged(tile.rows, dim));
        let mut queries = Array::<i32>::new(count);
        #[unroll]
        for n in 0..count {
            let row = staged_row(n, comptime!(vectors_of(dim)));
            let token = self.rows.token(index, row, comptime!(tile.in_order()));
            queries[n] = select(token < self.span.q_end, token, NONE);
        }
        queries
    }
}
