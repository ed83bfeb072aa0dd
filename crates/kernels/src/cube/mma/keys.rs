//! What the kernel that owns keys visits: queries of all heads of the group, one tile after another.

use cubecl::prelude::*;

use super::fragments::Pair;
use super::products::{Products, first_column};
use super::size::PLANE;
use super::visit::{Pipeline, Visit, pipeline};
use crate::cube::stats::{Stats, stats_at};
use crate::cube::tile::Tile;
use crate::cube::walk::{
    KeyTile, NONE, Reach, Span, TokenRows, Visits, all_attend, key_reach, no_visits, rows_reach,
};

/// The tokens of the rows of a key tile that have a place in the results, keys and padding.
#[cube]
pub(in crate::cube) fn key_tokens(
    own: &KeyTile,
    index: &[i32],
    kv_start: i32,
    rows_end: i32,
    #[comptime] tile: Tile,
    #[comptime] units: usize,
) -> Shared<[i32]> {
    let mut tokens = Shared::<[i32]>::new_slice(tile.rows);
    #[unroll]
    for n in 0..comptime!(tile.rows.div_ceil(units)) {
        let row = UNIT_POS + comptime!((n * units) as u32);
        if row < comptime!(tile.rows as u32) {
            tokens[row as usize] = own.token(index, row, kv_start, rows_end, tile);
        }
    }
    tokens
}

/// The query heads that share the keys of a tile.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Group {
    pub(in crate::cube) heads: i32,
    /// Place of the first head's record in the index; those of the others follow.
    pub(in crate::cube) records: usize,
    /// Row 0 of the first head, in the stats.
    pub(in crate::cube) stats: usize,
    /// Rows of a head.
    pub(in crate::cube) head_rows: usize,
    /// Rows of all heads and sequences.
    pub(in crate::cube) all_rows: usize,
}

/// The queries that a key tile visits.
#[derive(CubeType)]
pub(in crate::cube) struct VisitedQueries {
    cursor: QueryCursor,
    pub(in crate::cube) at: Pipeline,
    /// Of three visits.
    pub(in crate::cube) rows: VisitedStats,
    group: Group,
    span: Span,
    keys: Reach,
    #[cube(comptime)]
    tile: Tile,
    #[cube(comptime)]
    visited: Tile,
}

/// The first visits of a key tile. Their tokens and stats are there after the next barrier.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn visited_queries(
    own: &KeyTile,
    index: &[i32],
    stats: &[f32],
    group: Group,
    span: Span,
    infinity: f32,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> VisitedQueries {
    let mut queries = VisitedQueries {
        cursor: query_cursor(),
        at: pipeline(visited.rows),
        rows: visited_stats(comptime!(3 * visited.rows)),
        group,
        span,
        keys: key_reach(own, index, tile),
        tile,
        visited,
    };
    queries
        .cursor
        .settle(own, index, &group, &span, tile, visited);
    queries.look_up(index, stats, infinity, 0usize);
    let first = queries.describe(index);
    queries.at.visit = first;
    queries
        .cursor
        .advance(own, index, &group, &span, tile, visited);
    queries.look_up(index, stats, infinity, visited.rows);
    let second = queries.describe(index);
    queries.at.next = second;
    queries
}

#[cube]
impl VisitedQueries {
    /// Looks up the tokens and stats of the visit after the next.
    pub(in crate::cube) fn look_ahead(
        &mut self,
        own: &KeyTile,
        index: &[i32],
        stats: &[f32],
        infinity: f32,
    ) {
        self.cursor
            .advance(own, index, &self.group, &self.span, self.tile, self.visited);
        let place = self.at.later_tokens();
        self.look_up(index, stats, infinity, place);
    }

    /// Goes on to the next visit, after [`VisitedQueries::look_ahead`].
    pub(in crate::cube) fn turn(&mut self, index: &[i32]) {
        let later = self.describe(index);
        self.at.turn(later);
    }

    /// Sets what the queries of the cursor's visit have, from `place` on.
    fn look_up(&mut self, index: &[i32], stats: &[f32], infinity: f32, place: usize) {
        let head = self.cursor.head(&self.group) as usize;
        let group = self.group;
        let rows = self.cursor.rows(&self.span, self.visited);
        let row = visited_row(
            &rows,
            index,
            stats,
            group.stats + head * group.head_rows,
            group.all_rows,
            self.span.q_zero,
            infinity,
            UNIT_POS,
            self.visited,
        );
        self.rows.set(place, &row, UNIT_POS, self.visited);
    }

    /// What the cursor's visit attends of the tile.
    fn describe(&self, index: &[i32]) -> Visit {
        let (tile, visited) = comptime!((self.tile, self.visited));
        let queries = self.cursor.reach(index, &self.span, visited);
        self.cursor
            .describe(&self.group, &queries, &self.keys, tile)
    }
}

/// A place among the visits of all heads of the group and their intervals.
#[derive(CubeType)]
pub(in crate::cube) struct QueryCursor {
    /// The head, counted in its group.
    head: i32,
    interval: i32,
    intervals: i32,
    visit: i32,
    count: i32,
    visits: Visits,
}

/// Before the first visit: [`QueryCursor::settle`] goes there.
#[cube]
pub(in crate::cube) fn query_cursor() -> QueryCursor {
    QueryCursor {
        head: (-1i32).runtime(),
        interval: 0i32.runtime(),
        intervals: 1i32.runtime(),
        visit: 0i32.runtime(),
        count: 0i32.runtime(),
        visits: no_visits(),
    }
}

#[cube]
impl QueryCursor {
    /// Goes on to an interval with visits left, or to the end.
    fn settle(
        &mut self,
        own: &KeyTile,
        index: &[i32],
        group: &Group,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        while self.head < group.heads && self.visit >= self.count {
            self.interval += 1;
            if self.interval >= self.intervals {
                self.head += 1;
                self.interval = 0i32.runtime();
                if self.head < group.heads {
                    self.intervals = own.intervals(index, self.head as usize, tile);
                }
            }
            self.visit = 0i32.runtime();
            self.count = 0i32.runtime();
            // At the end the cursor stands at no block.
            self.visits.blocks.count = 0i32.runtime();
            if self.head < group.heads && self.interval < self.intervals {
                let head = self.head as usize;
                let record = usize::cast_from(index[group.records + head]);
                self.visits = own.visits(index, record, head, self.interval, span, tile);
                self.count = self.visits.blocks.visits(span.q_start, span.q_end, visited);
            }
        }
    }

    /// What the visit, whose rows reach as far as `queries`, attends of the tile, whose rows reach as far as `keys`.
    pub(in crate::cube) fn describe(
        &self,
        group: &Group,
        queries: &Reach,
        keys: &Reach,
        #[comptime] tile: Tile,
    ) -> Visit {
        let distances = self.visits.distances;
        Visit {
            any: self.any(group),
            all: all_attend(&distances, queries, keys, tile),
            head: self.head(group),
            distances,
        }
    }

    /// Whether there is a visit.
    pub(in crate::cube) fn any(&self, group: &Group) -> bool {
        self.head < group.heads
    }

    /// The head of the visit, counted in the group; any of them before the first visit and at the end.
    pub(in crate::cube) fn head(&self, group: &Group) -> i32 {
        max(min(self.head, group.heads - 1), 0)
    }

    /// The reach of the visit's rows.
    pub(in crate::cube) fn reach(
        &self,
        index: &[i32],
        span: &Span,
        #[comptime] visited: Tile,
    ) -> Reach {
        rows_reach(index, &self.rows(span, visited), visited)
    }

    /// Goes on by one visit.
    pub(in crate::cube) fn advance(
        &mut self,
        own: &KeyTile,
        index: &[i32],
        group: &Group,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        self.visit += 1;
        self.settle(own, index, group, span, tile, visited);
    }

    /// Goes on by so many visits, where `any` are to be passed over.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::cube) fn pass_over(
        &mut self,
        visits: u32,
        own: &KeyTile,
        index: &[i32],
        group: &Group,
        span: &Span,
        #[comptime] any: bool,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        if comptime!(any) {
            for _ in 0..visits {
                self.advance(own, index, group, span, tile, visited);
            }
        }
    }

    /// The rows of the visit; none at the end.
    pub(in crate::cube) fn rows(&self, span: &Span, #[comptime] visited: Tile) -> TokenRows {
        self.visits
            .blocks
            .rows(self.visit, span.q_start, span.q_end, visited)
    }
}

/// The tokens of visited queries.
#[derive(CubeType)]
pub(in crate::cube) struct VisitedTokens {
    pub(in crate::cube) of_rows: Shared<[i32]>,
    /// Of each plane of rows, whether one has no token.
    incomplete: Shared<[u32]>,
}

#[cube]
pub(in crate::cube) fn visited_tokens(#[comptime] rows: usize) -> VisitedTokens {
    VisitedTokens {
        of_rows: Shared::<[i32]>::new_slice(rows),
        incomplete: Shared::<[u32]>::new_slice(comptime!(rows / PLANE)),
    }
}

#[cube]
impl VisitedTokens {
    /// Sets that of row `at`: by all units of a plane, of rows that follow one another.
    pub(in crate::cube) fn set(&mut self, at: usize, token: i32) {
        self.of_rows[at] = token;
        let incomplete = plane_any(token == NONE);
        if UNIT_POS % 32u32 == 0u32 {
            self.incomplete[at / PLANE] = u32::cast_from(incomplete);
        }
    }

    /// Whether one of the rows from `place` on has no token: a row of zeros, and a key may be infinite.
    pub(in crate::cube) fn leave_out(&self, place: usize, #[comptime] rows: usize) -> bool {
        let mut any = 0u32.runtime();
        #[unroll]
        for n in 0..comptime!(rows / PLANE) {
            any |= self.incomplete[place / PLANE + n];
        }
        any != 0u32
    }
}

/// What the visited queries have of their rows.
#[derive(CubeType)]
pub(in crate::cube) struct VisitedStats {
    pub(in crate::cube) tokens: VisitedTokens,
    /// The lse to base 2 and `D`.
    stats: Shared<[Pair<f32>]>,
}

#[cube]
pub(in crate::cube) fn visited_stats(#[comptime] rows: usize) -> VisitedStats {
    VisitedStats {
        tokens: visited_tokens(rows),
        stats: Shared::<[Pair<f32>]>::new_slice(rows),
    }
}

/// What a unit has looked up of the row that it is to set: an lse to base e, `inf` where there is no token, so that weights are 0.
#[derive(CubeType)]
pub(in crate::cube) struct VisitedRow {
    pub(in crate::cube) token: i32,
    pub(in crate::cube) stats: Stats,
}

/// Looks up row `unit` of `rows`, where there is one. Row 0 of their head is `first_row` in `stats`, of `all` rows.
///
/// Queries that attend nothing are left out: theirs and their gradients' rows may hold anything.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn visited_row(
    rows: &TokenRows,
    index: &[i32],
    stats: &[f32],
    first_row: usize,
    all: usize,
    q_zero: i32,
    infinity: f32,
    unit: u32,
    #[comptime] visited: Tile,
) -> VisitedRow {
    let mut token = NONE.runtime();
    let mut lse = infinity;
    let mut d = f32::new(0.0);
    if unit < comptime!(visited.rows as u32) {
        token = rows.token(index, unit, visited);
        if token != NONE {
            let of_row = stats_at(stats, first_row + usize::cast_from(token - q_zero), all);
            if of_row.lse < f32::MIN {
                token = NONE.runtime();
            } else {
                lse = of_row.lse;
                d = of_row.d;
            }
        }
    }
    VisitedRow {
        token,
        stats: Stats { lse, d },
    }
}

#[cube]
impl VisitedStats {
    /// Sets row `unit` of a visit from `place` on, where there is one.
    pub(in crate::cube) fn set(
        &mut self,
        place: usize,
        row: &VisitedRow,
        unit: u32,
        #[comptime] visited: Tile,
    ) {
        if unit < comptime!(visited.rows as u32) {
            let at = place + unit as usize;
            self.tokens.set(at, row.token);
            let mut stats = Pair::<f32>::new(row.stats.lse * f32::new(core::f32::consts::LOG2_E));
            stats.insert(1usize, row.stats.d);
            self.stats[at] = stats;
        }
    }

    /// What element `e` of pair `n` of this unit needs of its visited row, of `tiles` tiles of 8 rows from `place` on.
    pub(in crate::cube) fn of_pair(
        &self,
        place: usize,
        #[comptime] n: usize,
        #[comptime] e: usize,
        #[comptime] tiles: usize,
        #[comptime] products: Products,
    ) -> Pair<f32> {
        let column = comptime!(products.column_of(n, e, tiles));
        self.stats[place + first_column(products) + column]
    }
}
