//! What the kernels that own queries share: their rows, and the keys that they visit one tile after another.

use cubecl::prelude::*;

use super::mask::Reach;
use super::stage::{moved, moved_place};
use crate::cube::tile::Tile;
use crate::cube::walk::{
    BlockList, Distances, NONE, RowWalk, Span, TokenRows, query_rows, row_walk, span,
};

/// The tile of queries of one cube. Grid: query tiles of all sequences and heads, the last tiles first.
#[derive(CubeType)]
pub(super) struct QueryTile {
    pub(super) head: usize,
    pub(super) kv_head: usize,
    pub(super) sequence: usize,
    pub(super) span: Span,
    pub(super) rows: TokenRows,
    pub(super) walk: RowWalk,
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
    let span = span(index, sequence);
    let rows = query_rows(
        &span,
        span.q_start + i32::cast_from(seq_q),
        i32::cast_from(cube / heads / batch),
        tile,
    );
    let walk = row_walk(index, (batch * 4u32) as usize, head, &rows, &span, tile);
    QueryTile {
        head,
        kv_head: head / (heads / kv_heads) as usize,
        sequence,
        span,
        rows,
        walk,
    }
}

#[cube]
impl QueryTile {
    /// The rows that hold queries, not padding.
    pub(super) fn queries(&self) -> TokenRows {
        TokenRows {
            blocks: self.rows.blocks,
            offset: self.rows.offset,
            start: self.rows.start,
            end: self.span.q_end,
        }
    }

    /// The queries of the tile, as far as its walk goes.
    pub(super) fn reach(&self, #[comptime] tile: Tile) -> Reach {
        let first_token = self.walk.first * comptime!(tile.block as i32) + self.rows.offset;
        Reach {
            first_block: self.walk.first,
            last_block: self.walk.last,
            first_token: max(first_token, self.span.q_start),
            last_token: self.span.q_end - 1,
            complete: true.runtime(),
        }
    }
}

/// The tokens of the rows of which this unit moves a chunk, to or from a stage with rows of `width` elements.
#[cube]
pub(super) fn moved_tokens(
    index: &[i32],
    rows: &TokenRows,
    #[comptime] tile: Tile,
    #[comptime] width: usize,
    #[comptime] units: usize,
) -> Array<i32> {
    let count = comptime!(moved(tile.rows, width, units));
    let mut tokens = Array::<i32>::new(count);
    #[unroll]
    for n in 0..count {
        let (row, _) = moved_place(n, width, units);
        tokens[n] = rows.token(index, row as u32, tile);
    }
    tokens
}

/// The visits of a query tile, one after another over all bands and phases.
#[derive(CubeType)]
pub(super) struct KeyCursor {
    band: i32,
    phase: i32,
    phases: i32,
    visit: i32,
    visits: i32,
    first: i32,
    step: i32,
    count: i32,
    min: i32,
    max: i32,
    stride: i32,
    residue: i32,
    causal: bool,
}

/// Before the first visit: [`KeyCursor::settle`] goes there.
#[cube]
pub(super) fn key_cursor() -> KeyCursor {
    KeyCursor {
        band: (-1i32).runtime(),
        phase: 0i32.runtime(),
        phases: 1i32.runtime(),
        visit: 0i32.runtime(),
        visits: 0i32.runtime(),
        first: 0i32.runtime(),
        step: 0i32.runtime(),
        count: 0i32.runtime(),
        min: 0i32.runtime(),
        max: 0i32.runtime(),
        stride: 1i32.runtime(),
        residue: 0i32.runtime(),
        causal: false.runtime(),
    }
}

#[cube]
impl KeyCursor {
    /// Goes on to a band and phase with visits left, or to the end.
    pub(super) fn settle(
        &mut self,
        index: &[i32],
        walk: &RowWalk,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        while self.band < walk.bands && self.visit >= self.visits {
            self.phase += 1;
            if self.phase >= self.phases {
                self.band += 1;
                self.phase = 0i32.runtime();
                if self.band < walk.bands {
                    self.phases = walk.phases(index, self.band, tile);
                }
            }
            self.visit = 0i32.runtime();
            self.visits = 0i32.runtime();
            self.count = 0i32.runtime();
            if self.band < walk.bands {
                let visits = walk.visits(index, self.band, self.phase, span, tile);
                self.visits = visits.blocks.visits(visited);
                self.first = visits.blocks.first;
                self.step = visits.blocks.step;
                self.count = visits.blocks.count;
                self.min = visits.distances.min;
                self.max = visits.distances.max;
                self.stride = visits.distances.stride;
                self.residue = visits.distances.residue;
                self.causal = visits.distances.causal;
            }
        }
    }

    /// Whether there is a visit.
    pub(super) fn any(&self, walk: &RowWalk) -> bool {
        self.band < walk.bands
    }

    /// Goes on by one visit.
    pub(super) fn advance(
        &mut self,
        index: &[i32],
        walk: &RowWalk,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        self.visit += 1;
        self.settle(index, walk, span, tile, visited);
    }

    /// The rows of the visit; none at the end.
    pub(super) fn rows(&self, span: &Span, #[comptime] visited: Tile) -> TokenRows {
        BlockList {
            first: self.first,
            step: self.step,
            count: self.count,
        }
        .rows(self.visit, span.kv_start, span.kv_end, visited)
    }

    /// The token of a visited row; [`NONE`] where no query of the tile attends its block.
    pub(super) fn token(
        &self,
        index: &[i32],
        walk: &RowWalk,
        rows: &TokenRows,
        row: u32,
        #[comptime] visited: Tile,
    ) -> i32 {
        let token = rows.token(index, row, visited);
        let reads = walk.reads(index, &self.distances(), token, visited);
        select(reads, token, NONE)
    }

    /// The tokens of the visited rows of which this unit moves a chunk.
    pub(super) fn moved(
        &self,
        index: &[i32],
        walk: &RowWalk,
        rows: &TokenRows,
        #[comptime] visited: Tile,
        #[comptime] dim: usize,
        #[comptime] units: usize,
    ) -> Array<i32> {
        let count = comptime!(moved(visited.rows, dim, units));
        let mut tokens = Array::<i32>::new(count);
        #[unroll]
        for n in 0..count {
            let (row, _) = moved_place(n, dim, units);
            tokens[n] = self.token(index, walk, rows, row as u32, visited);
        }
        tokens
    }

    pub(super) fn distances(&self) -> Distances {
        Distances {
            min: self.min,
            max: self.max,
            stride: self.stride,
            residue: self.residue,
            causal: self.causal,
            exact: true.runtime(),
        }
    }
}
