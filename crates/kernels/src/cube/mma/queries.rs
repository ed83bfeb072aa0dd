//! What the kernels that own queries share: their rows, and the keys that they visit one tile after another.

use cubecl::prelude::*;

use super::visit::Visit;
use crate::cube::tile::Tile;
use crate::cube::walk::{
    BlockList, Distances, NONE, QueryTile, Reach, RowWalk, Span, TokenRows, all_attend, rows_reach,
};

/// The tokens of the rows that have a place in the results, queries and padding.
#[cube]
pub(super) fn own_tokens(
    own: &QueryTile,
    index: &[i32],
    #[comptime] tile: Tile,
    #[comptime] units: usize,
) -> Shared<[i32]> {
    let mut tokens = Shared::<[i32]>::new_slice(tile.rows);
    #[unroll]
    for n in 0..comptime!(tile.rows.div_ceil(units)) {
        let row = UNIT_POS + comptime!((n * units) as u32);
        if row < comptime!(tile.rows as u32) {
            tokens[row as usize] = own.rows.token(index, row, comptime!(tile.in_order()));
        }
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
                self.visits = visits.blocks.visits(span.kv_start, span.kv_end, visited);
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
    fn any(&self, walk: &RowWalk) -> bool {
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
    fn rows(&self, span: &Span, #[comptime] visited: Tile) -> TokenRows {
        BlockList {
            first: self.first,
            step: self.step,
            count: self.count,
        }
        .rows(self.visit, span.kv_start, span.kv_end, visited)
    }

    /// Sets the tokens of the visited rows, from `tokens[first]` on; [`NONE`] where no query of the tile attends the block.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn visit(
        &self,
        tokens: &mut Shared<[i32]>,
        first: usize,
        index: &[i32],
        walk: &RowWalk,
        span: &Span,
        #[comptime] visited: Tile,
    ) {
        if UNIT_POS < comptime!(visited.rows as u32) {
            let token = self.rows(span, visited).token(index, UNIT_POS, visited);
            let reads = walk.reads(index, &self.distances(), token, visited);
            tokens[first + UNIT_POS as usize] = select(reads, token, NONE);
        }
    }

    /// Says what the visit attends of the tile.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn describe(
        &self,
        visit: &mut Visit,
        index: &[i32],
        own: &QueryTile,
        queries: &Reach,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        let distances = self.distances();
        let keys = rows_reach(index, &self.rows(&own.span, visited), visited);
        let all = all_attend(&distances, queries, &keys, tile);
        visit.set(self.any(&own.walk), all, 0i32.runtime(), &distances);
    }

    fn distances(&self) -> Distances {
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
