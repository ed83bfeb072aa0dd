//! What the kernel that owns keys visits: queries of all heads of the group, one tile after another.

use cubecl::prelude::*;

use super::visit::Visit;
use crate::cube::stats::stats_at;
use crate::cube::tile::Tile;
use crate::cube::walk::{
    BlockList, Distances, KeyTile, NONE, Reach, Span, TokenRows, all_attend, rows_reach,
};

/// The tokens of the rows of a key tile that have a place in the results, keys and padding.
#[cube]
pub(super) fn key_tokens(
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

/// The visits of a key tile, one after another over all heads of the group and their intervals.
#[derive(CubeType)]
pub(super) struct QueryCursor {
    /// The head, counted in its group.
    head: i32,
    interval: i32,
    intervals: i32,
    visit: i32,
    visits: i32,
    first: i32,
    count: i32,
    min: i32,
    max: i32,
    causal: bool,
    exact: bool,
}

/// Where the rows of the group are in the stats.
#[derive(CubeType)]
pub(super) struct VisitPlace {
    /// Heads of the group.
    pub(super) group: i32,
    /// Row 0 of the first head, in the stats.
    pub(super) group_rows: usize,
    /// Rows from a head to the next.
    pub(super) head_rows: usize,
    /// Rows of all heads and sequences.
    pub(super) all_rows: usize,
}

/// Before the first visit: [`QueryCursor::settle`] goes there.
#[cube]
pub(super) fn query_cursor() -> QueryCursor {
    QueryCursor {
        head: (-1i32).runtime(),
        interval: 0i32.runtime(),
        intervals: 1i32.runtime(),
        visit: 0i32.runtime(),
        visits: 0i32.runtime(),
        first: 0i32.runtime(),
        count: 0i32.runtime(),
        min: 0i32.runtime(),
        max: 0i32.runtime(),
        causal: false.runtime(),
        exact: false.runtime(),
    }
}

#[cube]
impl QueryCursor {
    /// Goes on to an interval with visits left, or to the end. `records` is where the group's head records are.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn settle(
        &mut self,
        own: &KeyTile,
        index: &[i32],
        records: usize,
        group: i32,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        while self.head < group && self.visit >= self.visits {
            self.interval += 1;
            if self.interval >= self.intervals {
                self.head += 1;
                self.interval = 0i32.runtime();
                if self.head < group {
                    self.intervals = own.intervals(index, self.head as usize, tile);
                }
            }
            self.visit = 0i32.runtime();
            self.visits = 0i32.runtime();
            self.count = 0i32.runtime();
            if self.head < group && self.interval < self.intervals {
                let head = self.head as usize;
                let record = usize::cast_from(index[records + head]);
                let visits = own.visits(index, record, head, self.interval, span, tile);
                self.visits = visits.blocks.visits(span.q_start, span.q_end, visited);
                self.first = visits.blocks.first;
                self.count = visits.blocks.count;
                self.min = visits.distances.min;
                self.max = visits.distances.max;
                self.causal = visits.distances.causal;
                self.exact = visits.distances.exact;
            }
        }
    }

    /// Goes on by one visit.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn advance(
        &mut self,
        own: &KeyTile,
        index: &[i32],
        records: usize,
        group: i32,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        self.visit += 1;
        self.settle(own, index, records, group, span, tile, visited);
    }

    /// The rows of the visit; none at the end.
    fn rows(&self, span: &Span, #[comptime] visited: Tile) -> TokenRows {
        BlockList {
            first: self.first,
            step: 1i32.runtime(),
            count: self.count,
        }
        .rows(self.visit, span.q_start, span.q_end, visited)
    }

    /// Sets what the visited queries have, from `first` on.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn visit(
        &self,
        stats_of: &mut VisitedStats,
        first: usize,
        index: &[i32],
        stats: &[f32],
        place: &VisitPlace,
        span: &Span,
        infinity: f32,
        #[comptime] visited: Tile,
    ) {
        let head = max(min(self.head, place.group - 1), 0) as usize;
        stats_of.visit(
            first,
            &self.rows(span, visited),
            index,
            stats,
            place.group_rows + head * place.head_rows,
            place.all_rows,
            span.q_start,
            infinity,
            visited,
        );
    }

    /// Says what the visit attends of the tile.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn describe(
        &self,
        visit: &mut Visit,
        index: &[i32],
        span: &Span,
        keys: &Reach,
        place: &VisitPlace,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        let distances = self.distances();
        let queries = rows_reach(index, &self.rows(span, visited), visited);
        let all = all_attend(&distances, &queries, keys, tile);
        let head = max(min(self.head, place.group - 1), 0);
        visit.set(self.head < place.group, all, head, &distances);
    }

    fn distances(&self) -> Distances {
        Distances {
            min: self.min,
            max: self.max,
            stride: 1i32.runtime(),
            residue: 0i32.runtime(),
            causal: self.causal,
            exact: self.exact,
        }
    }
}

/// What the visited queries have of their rows.
#[derive(CubeType)]
pub(super) struct VisitedStats {
    pub(super) tokens: Shared<[i32]>,
    /// To base 2; `inf` for rows without a token, whose weights are 0.
    pub(super) lse: Shared<[f32]>,
    pub(super) d: Shared<[f32]>,
}

#[cube]
pub(super) fn visited_stats(#[comptime] rows: usize) -> VisitedStats {
    VisitedStats {
        tokens: Shared::<[i32]>::new_slice(rows),
        lse: Shared::<[f32]>::new_slice(rows),
        d: Shared::<[f32]>::new_slice(rows),
    }
}

#[cube]
impl VisitedStats {
    /// Sets those of `rows`, from `first` on. Row 0 of their head is `first_row` in `stats`, of `all` rows.
    ///
    /// Queries that attend nothing are left out: theirs and their gradients' rows may hold anything.
    #[allow(clippy::too_many_arguments)]
    fn visit(
        &mut self,
        first: usize,
        rows: &TokenRows,
        index: &[i32],
        stats: &[f32],
        first_row: usize,
        all: usize,
        q_start: i32,
        infinity: f32,
        #[comptime] visited: Tile,
    ) {
        if UNIT_POS < comptime!(visited.rows as u32) {
            let mut token = rows.token(index, UNIT_POS, visited);
            let mut lse = infinity;
            let mut d = f32::new(0.0);
            if token != NONE {
                let of_row = stats_at(stats, first_row + usize::cast_from(token - q_start), all);
                if of_row.lse < f32::MIN {
                    token = NONE.runtime();
                } else {
                    lse = of_row.lse * f32::new(core::f32::consts::LOG2_E);
                    d = of_row.d;
                }
            }
            let at = first + UNIT_POS as usize;
            self.tokens[at] = token;
            self.lse[at] = lse;
            self.d[at] = d;
        }
    }
}
