//! Which keys a tile of queries visits.

use cubecl::prelude::*;

use super::distances::{Distances, everything};
use super::lists::{BlockList, Span, TokenRows, div, div_up, heads_at, modulo, span};
use crate::cube::index::{BAND_WORDS, QUERY_TILES, ROW_WORDS};
use crate::cube::place::place;
use crate::cube::tile::Tile;

/// The query tile `tile_index` of a sequence, counted from its last one: with causal patterns the heaviest first.
#[cube]
fn query_rows(span: &Span, tile_index: i32, #[comptime] tile: Tile) -> TokenRows {
    let rows_end = span.q_rows_end;
    let slots = comptime!(tile.slots() as i32);
    let first = div(div(span.q_start, tile.block), tile.slots()) * slots;
    let blocks = BlockList {
        first,
        step: 1,
        count: div_up(rows_end, tile.block) - first,
    };
    let visits = blocks.visits(span.q_start, rows_end, comptime!(tile.in_order()));
    // Beyond the tiles of the sequence nothing is left to visit.
    blocks.rows(
        select(tile_index < visits, visits - 1 - tile_index, visits),
        span.q_start,
        rows_end,
        comptime!(tile.in_order()),
    )
}

/// The keys that a query tile visits for one band: blocks, and what of them is attended.
#[derive(CubeType, CubeTypeMut, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Visits {
    pub(in crate::cube) blocks: BlockList,
    pub(in crate::cube) distances: Distances,
}

#[cube]
impl Visits {
    /// Those of unit `unit` of the plane.
    pub(in crate::cube) fn of_unit(&self, unit: u32) -> Visits {
        let (blocks, distances) = (self.blocks, self.distances);
        Visits {
            blocks: BlockList {
                first: plane_shuffle(blocks.first, unit),
                step: plane_shuffle(blocks.step, unit),
                count: plane_shuffle(blocks.count, unit),
            },
            distances: Distances {
                min: plane_shuffle(distances.min, unit),
                max: plane_shuffle(distances.max, unit),
                stride: plane_shuffle(distances.stride, unit),
                residue: plane_shuffle(distances.residue, unit),
                causal: plane_shuffle(u32::cast_from(distances.causal), unit) != 0u32,
                exact: plane_shuffle(u32::cast_from(distances.exact), unit) != 0u32,
            },
        }
    }
}

/// No block.
#[cube]
pub(in crate::cube) fn no_visits() -> Visits {
    Visits {
        blocks: BlockList {
            first: 0i32.runtime(),
            step: 1i32.runtime(),
            count: 0i32.runtime(),
        },
        distances: Distances {
            min: 0i32.runtime(),
            max: 0i32.runtime(),
            stride: 1i32.runtime(),
            residue: 0i32.runtime(),
            causal: false.runtime(),
            exact: true.runtime(),
        },
    }
}

/// Query blocks `first..=last` of a tile, for which a row record is walked.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct RowWalk {
    /// Place of the head's row record.
    pub(in crate::cube) record: usize,
    pub(in crate::cube) first: i32,
    pub(in crate::cube) last: i32,
    /// Bands to visit: none where the tile holds no query.
    pub(in crate::cube) bands: i32,
}

#[cube]
fn row_walk(
    index: &[i32],
    record: usize,
    rows: &TokenRows,
    span: &Span,
    #[comptime] tile: Tile,
) -> RowWalk {
    let first = max(rows.blocks.first, div(span.q_start, tile.block));
    let slots = min(rows.blocks.count, comptime!(tile.slots() as i32));
    let last = min(
        rows.blocks.first + slots - 1,
        div_up(span.q_end, tile.block) - 1,
    );
    let starts = first * comptime!(tile.block as i32) + rows.offset;
    let mut bands = 0i32;
    if first <= last
        && starts < span.q_end
        && span.q_start < span.q_end
        && span.kv_start < span.kv_end
    {
        bands = if comptime!(tile.table) {
            1i32.runtime()
        } else {
            index[record + 1]
        };
    }
    RowWalk {
        record,
        first,
        last,
        bands,
    }
}

#[cube]
impl RowWalk {
    /// Visits that a band takes: with diagonal strides one for each residue among the tile's rows.
    pub(in crate::cube) fn phases(&self, index: &[i32], band: i32, #[comptime] tile: Tile) -> i32 {
        let mut phases = 1i32;
        if !comptime!(tile.table) {
            let at = self.band(band);
            if index[at + 6] != 0 {
                phases = min(index[at + 4], self.last - self.first + 1);
            }
        }
        phases
    }

    fn band(&self, band: i32) -> usize {
        self.record + ROW_WORDS + usize::cast_from(band) * BAND_WORDS
    }

    pub(in crate::cube) fn visits(
        &self,
        index: &[i32],
        band: i32,
        phase: i32,
        span: &Span,
        #[comptime] tile: Tile,
    ) -> Visits {
        let causal = index[self.record] != 0;
        if comptime!(tile.table) {
            let list = div(self.first, tile.slots());
            let at = usize::cast_from(index[self.record + 1] + 2 * list);
            Visits {
                blocks: BlockList {
                    first: index[at],
                    step: 1i32.runtime(),
                    count: index[at + 1],
                },
                distances: everything(causal),
            }
        } else {
            let at = self.band(band);
            let (min_distance, max_distance) = (index[at], index[at + 1]);
            let (stride, residue, diagonal) = (index[at + 4], index[at + 5], index[at + 6] != 0);
            let key_first = div(span.kv_start, tile.block);
            let key_end = div_up(span.kv_end, tile.block);
            let low = max(max(key_first, index[at + 2]), self.first - max_distance);
            let high = min(min(key_end, index[at + 3]) - 1, self.last - min_distance);
            let along = select(diagonal, self.first + phase - residue, residue);
            // The first block at the residue may be beyond what 32 bits count, or `high` before `low`.
            let gap = modulo(along - low, stride);
            let reach = high - low - gap;
            Visits {
                blocks: BlockList {
                    first: low + gap,
                    step: stride,
                    count: select(high >= low && reach >= 0, reach / stride + 1, 0),
                },
                distances: Distances {
                    min: min_distance,
                    max: max_distance,
                    stride: select(diagonal, stride, 1),
                    residue,
                    causal,
                    exact: true.runtime(),
                },
            }
        }
    }
}

#[cube]
impl RowWalk {
    /// Whether a query block of the tile attends the block of a key that is visited; its data are read only then.
    ///
    /// Several blocks to a tile share their lists: those of a table hold what blocks outside of the call's queries
    /// attend, those of a diagonal stride what lies too near or too far for the rows of their residue.
    pub(in crate::cube) fn reads(
        &self,
        index: &[i32],
        distances: &Distances,
        key: i32,
        #[comptime] tile: Tile,
    ) -> bool {
        let shared = comptime!(tile.table) || distances.stride > 1;
        let mut reads = !shared;
        if shared && key >= 0 {
            let first_key = div(key, tile.block) * comptime!(tile.block as i32);
            for block in self.first..self.last + 1 {
                // The last query of a block attends the first key of every block that the block attends.
                let last_query = (block + 1) * comptime!(tile.block as i32) - 1;
                if distances.attends(index, self.record, last_query, first_key, tile) {
                    reads = true;
                }
            }
        }
        reads
    }
}

/// A tile of queries: of those of all sequences and heads, the last tiles of a sequence first.
#[derive(CubeType)]
pub(in crate::cube) struct QueryTile {
    pub(in crate::cube) head: usize,
    pub(in crate::cube) kv_head: usize,
    pub(in crate::cube) sequence: usize,
    pub(in crate::cube) span: Span,
    pub(in crate::cube) rows: TokenRows,
    pub(in crate::cube) walk: RowWalk,
}

#[cube]
pub(in crate::cube) fn query_tile(
    index: &[i32],
    number: u32,
    heads: u32,
    kv_heads: u32,
    #[comptime] tile: Tile,
) -> QueryTile {
    let head = (number % heads) as usize;
    let place = place(index, number / heads, QUERY_TILES);
    let span = span(index, place.sequence);
    let rows = query_rows(&span, place.number, tile);
    let record = usize::cast_from(index[heads_at(index) + head]);
    let walk = row_walk(index, record, &rows, &span, tile);
    QueryTile {
        head,
        kv_head: head / (heads / kv_heads) as usize,
        sequence: place.sequence,
        span,
        rows,
        walk,
    }
}
