//! What the kernels that own queries share: their rows, and the keys that they visit one tile after another.

use cubecl::prelude::*;

use super::visit::{Pipeline, Visit, pipeline};
use crate::cube::tile::Tile;
use crate::cube::walk::{
    NONE, QueryTile, Reach, RowWalk, Span, TokenRows, Visits, all_attend, no_visits, query_reach,
    rows_reach,
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

/// The keys that a query tile visits.
#[derive(CubeType)]
pub(super) struct VisitedKeys {
    cursor: KeyCursor,
    pub(super) at: Pipeline,
    /// Of three visits.
    pub(super) tokens: Shared<[i32]>,
    queries: Reach,
    #[cube(comptime)]
    tile: Tile,
    #[cube(comptime)]
    visited: Tile,
}

/// The first visits of a query tile. Their tokens are there after the next barrier.
#[cube]
pub(super) fn visited_keys(
    own: &QueryTile,
    index: &[i32],
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> VisitedKeys {
    let mut keys = VisitedKeys {
        cursor: key_cursor(),
        at: pipeline(visited.rows),
        tokens: Shared::<[i32]>::new_slice(comptime!(3 * visited.rows)),
        queries: query_reach(own, tile),
        tile,
        visited,
    };
    keys.cursor
        .settle(index, &own.walk, &own.span, tile, visited);
    keys.look_up(own, index, 0usize);
    let first = keys.describe(own, index);
    keys.at.visit = first;
    keys.cursor
        .advance(index, &own.walk, &own.span, tile, visited);
    keys.look_up(own, index, visited.rows);
    let second = keys.describe(own, index);
    keys.at.next = second;
    keys
}

#[cube]
impl VisitedKeys {
    /// Looks up the tokens of the visit after the next.
    pub(super) fn look_ahead(&mut self, own: &QueryTile, index: &[i32]) {
        self.cursor
            .advance(index, &own.walk, &own.span, self.tile, self.visited);
        let place = self.at.later_tokens();
        self.look_up(own, index, place);
    }

    /// Goes on to the next visit, after [`VisitedKeys::look_ahead`].
    pub(super) fn turn(&mut self, own: &QueryTile, index: &[i32]) {
        let later = self.describe(own, index);
        self.at.turn(later);
    }

    /// Sets the tokens of the rows of the cursor's visit, from `tokens[place]` on; [`NONE`] where no query of the tile
    /// attends the block.
    fn look_up(&mut self, own: &QueryTile, index: &[i32], place: usize) {
        let visited = comptime!(self.visited);
        if UNIT_POS < comptime!(visited.rows as u32) {
            let token = self
                .cursor
                .rows(&own.span, visited)
                .token(index, UNIT_POS, visited);
            let reads = own
                .walk
                .reads(index, &self.cursor.visits.distances, token, visited);
            self.tokens[place + UNIT_POS as usize] = select(reads, token, NONE);
        }
    }

    /// What the cursor's visit attends of the tile.
    fn describe(&self, own: &QueryTile, index: &[i32]) -> Visit {
        let (tile, visited) = comptime!((self.tile, self.visited));
        let distances = self.cursor.visits.distances;
        let keys = rows_reach(index, &self.cursor.rows(&own.span, visited), visited);
        Visit {
            any: self.cursor.band < own.walk.bands,
            all: all_attend(&distances, &self.queries, &keys, tile),
            head: 0i32.runtime(),
            distances,
        }
    }
}

/// A place among the visits of all bands and phases.
#[derive(CubeType)]
struct KeyCursor {
    band: i32,
    phase: i32,
    phases: i32,
    visit: i32,
    count: i32,
    visits: Visits,
}

/// Before the first visit: [`KeyCursor::settle`] goes there.
#[cube]
fn key_cursor() -> KeyCursor {
    KeyCursor {
        band: (-1i32).runtime(),
        phase: 0i32.runtime(),
        phases: 1i32.runtime(),
        visit: 0i32.runtime(),
        count: 0i32.runtime(),
        visits: no_visits(),
    }
}

#[cube]
impl KeyCursor {
    /// Goes on to a band and phase with visits left, or to the end.
    fn settle(
        &mut self,
        index: &[i32],
        walk: &RowWalk,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        while self.band < walk.bands && self.visit >= self.count {
            self.phase += 1;
            if self.phase >= self.phases {
                self.band += 1;
                self.phase = 0i32.runtime();
                if self.band < walk.bands {
                    self.phases = walk.phases(index, self.band, tile);
                }
            }
            self.visit = 0i32.runtime();
            self.count = 0i32.runtime();
            // At the end the cursor stands at no block.
            self.visits.blocks.count = 0i32.runtime();
            if self.band < walk.bands {
                self.visits = walk.visits(index, self.band, self.phase, span, tile);
                self.count = self
                    .visits
                    .blocks
                    .visits(span.kv_start, span.kv_end, visited);
            }
        }
    }

    /// Goes on by one visit.
    fn advance(
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
        self.visits
            .blocks
            .rows(self.visit, span.kv_start, span.kv_end, visited)
    }
}
