//! What the kernels that own queries share: their rows, and the keys that they visit one tile after another.

use cubecl::prelude::*;

use super::visit::{Pipeline, Visit, pipeline};
use crate::cube::tile::Tile;
use crate::cube::walk::{
    Distances, NONE, QueryTile, Reach, RowWalk, Span, TokenRows, Visits, all_attend, no_visits,
    query_reach, rows_reach,
};

/// The tokens of the rows that have a place in the results, queries and padding.
#[cube]
pub(in crate::cube) fn own_tokens(
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
pub(in crate::cube) struct VisitedKeys {
    cursor: KeyCursor,
    pub(in crate::cube) at: Pipeline,
    /// Of three visits.
    pub(in crate::cube) tokens: Shared<[i32]>,
    queries: Reach,
    #[cube(comptime)]
    tile: Tile,
    #[cube(comptime)]
    visited: Tile,
}

/// The first visits of a query tile. Their tokens are there after the next barrier.
#[cube]
pub(in crate::cube) fn visited_keys(
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
        .advance(index, &own.walk, &own.span, tile, visited);
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
    pub(in crate::cube) fn look_ahead(&mut self, own: &QueryTile, index: &[i32]) {
        self.cursor
            .advance(index, &own.walk, &own.span, self.tile, self.visited);
        let place = self.at.later_tokens();
        self.look_up(own, index, place);
    }

    /// Goes on to the next visit, after [`VisitedKeys::look_ahead`].
    pub(in crate::cube) fn turn(&mut self, own: &QueryTile, index: &[i32]) {
        let later = self.describe(own, index);
        self.at.turn(later);
    }

    /// Sets the tokens of the rows of the cursor's visit, from `tokens[place]` on; [`NONE`] where no query of the tile
    /// attends the block.
    fn look_up(&mut self, own: &QueryTile, index: &[i32], place: usize) {
        let visited = comptime!(self.visited);
        if UNIT_POS < comptime!(visited.rows as u32) {
            let token = self.cursor.token(own, index, UNIT_POS, visited);
            self.tokens[place + UNIT_POS as usize] = token;
        }
    }

    /// What the cursor's visit attends of the tile.
    fn describe(&self, own: &QueryTile, index: &[i32]) -> Visit {
        self.cursor
            .describe(own, index, &self.queries, self.tile, self.visited)
    }
}

/// A place among the visits of all bands and phases.
#[derive(CubeType)]
pub(in crate::cube) struct KeyCursor {
    band: i32,
    phase: i32,
    phases: i32,
    visit: i32,
    count: i32,
    visits: Visits,
}

/// Before the first visit: [`KeyCursor::advance`] goes there.
#[cube]
pub(in crate::cube) fn key_cursor() -> KeyCursor {
    KeyCursor {
        band: (-1i32).runtime(),
        phase: 0i32.runtime(),
        phases: 1i32.runtime(),
        visit: (-1i32).runtime(),
        count: 0i32.runtime(),
        visits: no_visits(),
    }
}

#[cube]
impl KeyCursor {
    /// Goes on by one visit.
    pub(in crate::cube) fn advance(
        &mut self,
        index: &[i32],
        walk: &RowWalk,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        self.advance_by(1i32, index, walk, span, tile, visited);
    }

    /// Goes on by `count` visits.
    pub(in crate::cube) fn advance_by(
        &mut self,
        count: i32,
        index: &[i32],
        walk: &RowWalk,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        self.visit += count;
        // To the band and phase that has it, or to the end.
        while self.band < walk.bands && self.visit >= self.count {
            self.phase += 1;
            if self.phase >= self.phases {
                self.band += 1;
                self.phase = 0i32.runtime();
                if self.band < walk.bands {
                    self.phases = walk.phases(index, self.band, tile);
                }
            }
            self.visit -= self.count;
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

    /// Where unit `unit` of the plane stands.
    pub(in crate::cube) fn of_unit(&self, unit: u32) -> KeyCursor {
        KeyCursor {
            band: plane_shuffle(self.band, unit),
            phase: plane_shuffle(self.phase, unit),
            phases: plane_shuffle(self.phases, unit),
            visit: plane_shuffle(self.visit, unit),
            count: plane_shuffle(self.count, unit),
            visits: self.visits.of_unit(unit),
        }
    }

    /// Whether there is a visit.
    pub(in crate::cube) fn any(&self, walk: &RowWalk) -> bool {
        self.band < walk.bands
    }

    /// The distances that the visit covers.
    pub(in crate::cube) fn distances(&self) -> Distances {
        self.visits.distances
    }

    /// What the visit attends of the tile, whose rows reach as far as `queries`.
    pub(in crate::cube) fn describe(
        &self,
        own: &QueryTile,
        index: &[i32],
        queries: &Reach,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) -> Visit {
        let distances = self.visits.distances;
        let keys = self.reach(own, index, visited);
        Visit {
            any: self.any(&own.walk),
            all: all_attend(&distances, queries, &keys, tile),
            head: 0i32.runtime(),
            distances,
        }
    }

    /// The reach of the visit's rows.
    pub(in crate::cube) fn reach(
        &self,
        own: &QueryTile,
        index: &[i32],
        #[comptime] visited: Tile,
    ) -> Reach {
        rows_reach(index, &self.rows(&own.span, visited), visited)
    }

    /// The token of a row of the visit; [`NONE`] where no query of the tile attends the block.
    pub(in crate::cube) fn token(
        &self,
        own: &QueryTile,
        index: &[i32],
        row: u32,
        #[comptime] visited: Tile,
    ) -> i32 {
        let token = self.rows(&own.span, visited).token(index, row, visited);
        let reads = own
            .walk
            .reads(index, &self.visits.distances, token, visited);
        select(reads, token, NONE)
    }

    /// The rows of the visit; none at the end.
    fn rows(&self, span: &Span, #[comptime] visited: Tile) -> TokenRows {
        self.visits
            .blocks
            .rows(self.visit, span.kv_start, span.kv_end, visited)
    }
}
