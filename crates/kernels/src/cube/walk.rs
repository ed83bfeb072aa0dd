//! The schedule on the device: which blocks a tile visits, and which pairs of tokens attend, from the index buffer.

use cubecl::prelude::*;

use super::index::{BAND_WORDS, CLASS_WORDS, COLUMN_WORDS, OTHERS, ROW_WORDS, SPAN_WORDS};
use super::tile::Tile;

/// No token: a row of a tile that holds nothing.
pub(super) const NONE: i32 = -1;

/// Where the tokens of a sequence stand; ends are exclusive.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Span {
    pub(super) q_start: i32,
    pub(super) q_end: i32,
    pub(super) kv_start: i32,
    pub(super) kv_end: i32,
}

/// Some blocks: `first, first + step, ..`, or `count` entries of the index buffer from `first` on.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct BlockList {
    pub(super) first: i32,
    pub(super) step: i32,
    pub(super) count: i32,
}

/// The tokens of a tile, row by row.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct TokenRows {
    /// The blocks from the first row on.
    pub(super) blocks: BlockList,
    /// Tokens of each block before the first row.
    pub(super) offset: i32,
    /// Tokens that exist.
    pub(super) start: i32,
    /// End of the tokens that exist.
    pub(super) end: i32,
}

/// The distances `i - j` that a visit covers.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Distances {
    pub(super) min: i32,
    pub(super) max: i32,
    /// Distances are congruent to `residue` modulo this; 1 for all.
    pub(super) stride: i32,
    pub(super) residue: i32,
    /// Whether keys after the query are left out.
    pub(super) causal: bool,
    /// Whether these distances say it all; if not, the bands of the head are asked for each pair.
    pub(super) exact: bool,
}

#[cube]
pub(super) fn span(index: &[i32], sequence: usize) -> Span {
    let at = sequence * SPAN_WORDS;
    Span {
        q_start: index[at],
        q_end: index[at + 1],
        kv_start: index[at + 2],
        kv_end: index[at + 3],
    }
}

/// `a / b` for `a >= 0`.
#[cube]
pub(super) fn div(a: i32, #[comptime] b: usize) -> i32 {
    i32::cast_from(u32::cast_from(a) / comptime!(b as u32))
}

/// `a / b`, upwards, for `a >= 0`.
#[cube]
pub(super) fn div_up(a: i32, #[comptime] b: usize) -> i32 {
    div(a + comptime!(b as i32 - 1), b)
}

/// The non-negative remainder.
#[cube]
fn modulo(a: i32, b: i32) -> i32 {
    let rest = a % b;
    select(rest < 0, rest + b, rest)
}

/// `a / b` upwards, 0 for `a <= 0`.
#[cube]
fn steps(a: i32, b: i32) -> i32 {
    max(a + b - 1, 0) / b
}

#[cube]
impl BlockList {
    /// Visits that the list takes, a tile of blocks or a part of one each.
    pub(super) fn visits(&self, #[comptime] tile: Tile) -> i32 {
        div_up(max(self.count, 0), comptime!(tile.slots())) * comptime!(tile.parts() as i32)
    }

    /// The rows of one visit.
    pub(super) fn rows(
        &self,
        visit: i32,
        start: i32,
        end: i32,
        #[comptime] tile: Tile,
    ) -> TokenRows {
        let parts = comptime!(tile.parts());
        let done = div(visit, parts) * comptime!(tile.slots() as i32);
        TokenRows {
            blocks: BlockList {
                first: self.first + done * self.step,
                step: self.step,
                count: self.count - done,
            },
            offset: (visit % comptime!(parts as i32)) * comptime!(tile.rows as i32),
            start,
            end,
        }
    }
}

#[cube]
impl TokenRows {
    /// The token of a row, or [`NONE`].
    pub(super) fn token(&self, index: &[i32], row: u32, #[comptime] tile: Tile) -> i32 {
        let width = comptime!(tile.slot_rows() as u32);
        let slot = i32::cast_from(row / width);
        let within = i32::cast_from(row % width) + self.offset;
        let mut token = NONE.runtime();
        if slot < min(self.blocks.count, comptime!(tile.slots() as i32))
            && within < comptime!(tile.block as i32)
        {
            let block = if comptime!(tile.table) {
                index[usize::cast_from(self.blocks.first + slot)]
            } else {
                self.blocks.first + slot * self.blocks.step
            };
            let here = block * comptime!(tile.block as i32) + within;
            if here >= self.start && here < self.end {
                token = here;
            }
        }
        token
    }
}

/// The query tile `tile_index` of a sequence, counted from its last one: with causal patterns the heaviest first.
#[cube]
pub(super) fn query_rows(
    span: &Span,
    rows_end: i32,
    tile_index: i32,
    #[comptime] tile: Tile,
) -> TokenRows {
    let slots = comptime!(tile.slots() as i32);
    let first = div(div(span.q_start, tile.block), tile.slots()) * slots;
    let blocks = BlockList {
        first,
        step: 1,
        count: div_up(rows_end, tile.block) - first,
    };
    let visits = blocks.visits(tile);
    // A sequence with fewer tiles than the longest of the batch: nothing is left to visit.
    blocks.rows(
        select(tile_index < visits, visits - 1 - tile_index, visits),
        span.q_start,
        rows_end,
        tile,
    )
}

/// The keys that a query tile visits for one band: blocks, and what of them is attended.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Visits {
    pub(super) blocks: BlockList,
    pub(super) distances: Distances,
}

/// Query blocks `first..=last` of a tile, for which a row record is walked.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct RowWalk {
    /// Place of the head's row record.
    pub(super) record: usize,
    pub(super) first: i32,
    pub(super) last: i32,
    /// Bands to visit: none where the tile holds no query.
    pub(super) bands: i32,
}

#[cube]
pub(super) fn row_walk(
    index: &[i32],
    heads_at: usize,
    head: usize,
    rows: &TokenRows,
    span: &Span,
    #[comptime] tile: Tile,
) -> RowWalk {
    let record = usize::cast_from(index[heads_at + head]);
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
    pub(super) fn phases(&self, index: &[i32], band: i32, #[comptime] tile: Tile) -> i32 {
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

    pub(super) fn visits(
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
            let first = low + modulo(along - low, stride);
            Visits {
                blocks: BlockList {
                    first,
                    step: stride,
                    count: select(high >= first, (high - first) / stride + 1, 0),
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
    pub(super) fn reads(
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

/// All distances; the mask of the table says which pairs attend.
#[cube]
fn everything(causal: bool) -> Distances {
    Distances {
        min: -0x4000_0000i32.runtime(),
        max: 0x4000_0000i32.runtime(),
        stride: 1i32.runtime(),
        residue: 0i32.runtime(),
        causal,
        exact: true.runtime(),
    }
}

/// A key tile: consecutive members of one class of columns, or a part of one.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct KeyTile {
    /// Place of the group's column record.
    pub(super) record: usize,
    /// Class of the members; -1 where the sequence has no such tile.
    pub(super) class: i32,
    /// The first member.
    pub(super) member: i32,
    /// End of the members that the sequence holds.
    pub(super) end: i32,
    /// Tokens of each block before the first row.
    pub(super) offset: i32,
}

#[cube]
pub(super) fn key_tile(
    index: &[i32],
    groups_at: usize,
    kv_head: usize,
    tile_index: i32,
    kv_start: i32,
    rows_end: i32,
    #[comptime] tile: Tile,
) -> KeyTile {
    let slots = comptime!(tile.slots() as i32);
    let key_first = div(kv_start, tile.block);
    let key_end = div_up(rows_end, tile.block);
    let record = usize::cast_from(index[groups_at + kv_head]);
    let mut found = KeyTile {
        record,
        class: -1i32.runtime(),
        member: 0i32.runtime(),
        end: 0i32.runtime(),
        offset: 0i32.runtime(),
    };
    let mut left = tile_index;
    let classes = if comptime!(tile.table) {
        1i32.runtime()
    } else {
        index[record]
    };
    for class in 0..classes {
        let mut from = key_first;
        let mut end = key_end;
        if !comptime!(tile.table) {
            from = members_before(index, record, class, key_first);
            end = members_before(index, record, class, key_end);
        }
        from = div(from, tile.slots()) * slots;
        let visits = BlockList {
            first: 0i32.runtime(),
            step: 1i32.runtime(),
            count: end - from,
        }
        .visits(tile);
        if found.class < 0 {
            if left < visits {
                let parts = comptime!(tile.parts());
                found.class = class;
                found.member = from + div(left, parts) * slots;
                found.end = end;
                found.offset = (left % comptime!(parts as i32)) * comptime!(tile.rows as i32);
            } else {
                left -= visits;
            }
        }
    }
    found
}

#[cube]
fn class_at(index: &[i32], record: usize, class: i32) -> usize {
    record + COLUMN_WORDS + usize::cast_from(class * index[record + 2])
}

/// Members of a class below `column`.
#[cube]
fn members_before(index: &[i32], record: usize, class: i32, column: i32) -> i32 {
    let at = class_at(index, record, class);
    let stride = index[at + 2];
    let mut members = column;
    if index[at] == OTHERS {
        for earlier in 0..class {
            let residue = index[class_at(index, record, earlier) + 1];
            members -= steps(column - residue, stride);
        }
    } else {
        members = steps(min(column, index[at + 3]) - index[at + 1], stride);
    }
    members
}

#[cube]
impl KeyTile {
    /// The column of a member.
    pub(super) fn column(&self, index: &[i32], member: i32) -> i32 {
        let at = class_at(index, self.record, self.class);
        let stride = index[at + 2];
        let mut column = index[at + 1] + member * stride;
        if index[at] == OTHERS {
            // Residues in order, each one that is not ours moves us one on.
            let others = stride - self.class;
            let mut residue = member % others;
            for earlier in 0..self.class {
                if residue >= index[class_at(index, self.record, earlier) + 1] {
                    residue += 1;
                }
            }
            column = member / others * stride + residue;
        }
        column
    }

    /// Whether an earlier class has the column.
    fn taken(&self, index: &[i32], column: i32) -> bool {
        let mut taken = false;
        let at = class_at(index, self.record, self.class);
        if index[at] != OTHERS {
            for earlier in 0..self.class {
                let at = class_at(index, self.record, earlier);
                let from = column - index[at + 1];
                if from >= 0 && column < index[at + 3] && from % index[at + 2] == 0 {
                    taken = true;
                }
            }
        }
        taken
    }

    /// The token of a row, or [`NONE`].
    pub(super) fn token(
        &self,
        index: &[i32],
        row: u32,
        kv_start: i32,
        rows_end: i32,
        #[comptime] tile: Tile,
    ) -> i32 {
        let width = comptime!(tile.slot_rows() as u32);
        let slot = i32::cast_from(row / width);
        let within = i32::cast_from(row % width) + self.offset;
        let member = self.member + slot;
        let mut token = NONE.runtime();
        if self.class >= 0
            && slot < comptime!(tile.slots() as i32)
            && member < self.end
            && within < comptime!(tile.block as i32)
        {
            let mut column = member;
            let mut ours = true;
            if !comptime!(tile.table) {
                column = self.column(index, member);
                ours = !self.taken(index, column);
            }
            let here = column * comptime!(tile.block as i32) + within;
            if ours && here >= kv_start && here < rows_end {
                token = here;
            }
        }
        token
    }

    /// Intervals of distances at which a query head of the group attends the tile.
    pub(super) fn intervals(
        &self,
        index: &[i32],
        head_in_group: usize,
        #[comptime] tile: Tile,
    ) -> i32 {
        let mut count = 1i32;
        if !comptime!(tile.table) {
            count = index[self.intervals_at(index, head_in_group)];
        }
        select(self.class >= 0, count, 0)
    }

    fn intervals_at(&self, index: &[i32], head_in_group: usize) -> usize {
        class_at(index, self.record, max(self.class, 0))
            + CLASS_WORDS
            + head_in_group * usize::cast_from(index[self.record + 3])
    }

    /// The query blocks that attend the tile at the distances of one interval.
    pub(super) fn visits(
        &self,
        index: &[i32],
        head_record: usize,
        head_in_group: usize,
        interval: i32,
        span: &Span,
        #[comptime] tile: Tile,
    ) -> Visits {
        let causal = index[head_record] != 0;
        if comptime!(tile.table) {
            let list = div(self.member, tile.slots());
            let at = usize::cast_from(index[head_record + 2] + 2 * list);
            let mut count = 0i32;
            if self.member * comptime!(tile.block as i32) < span.kv_end {
                count = index[at + 1];
            }
            Visits {
                blocks: BlockList {
                    first: index[at],
                    step: 1i32.runtime(),
                    count,
                },
                distances: everything(causal),
            }
        } else {
            let at = self.intervals_at(index, head_in_group) + 1 + usize::cast_from(2 * interval);
            let (min_distance, max_distance) = (index[at], index[at + 1]);
            let last_member = min(self.member + comptime!(tile.slots() as i32), self.end) - 1;
            let first_column = self.column(index, self.member);
            let last_column = self.column(index, last_member);
            let query_first = div(span.q_start, tile.block);
            let query_end = select(
                span.q_start < span.q_end,
                div_up(span.q_end, tile.block),
                query_first,
            );
            let first = max(query_first, first_column + min_distance);
            let last = min(query_end - 1, last_column + max_distance);
            Visits {
                blocks: BlockList {
                    first,
                    step: 1i32.runtime(),
                    count: max(last - first + 1, 0),
                },
                distances: Distances {
                    min: min_distance,
                    max: max_distance,
                    stride: 1i32.runtime(),
                    residue: 0i32.runtime(),
                    causal,
                    exact: index[self.record + 1] != 0,
                },
            }
        }
    }
}

#[cube]
impl Distances {
    /// Whether query token `q` attends key token `k`; both may be [`NONE`].
    pub(super) fn attends(
        &self,
        index: &[i32],
        head_record: usize,
        q: i32,
        k: i32,
        #[comptime] tile: Tile,
    ) -> bool {
        let mut attends = false;
        if q >= 0 && k >= 0 && (!self.causal || k <= q) {
            let i = div(q, tile.block);
            let j = div(k, tile.block);
            if comptime!(tile.table) {
                let row = index[head_record + 3] + i * index[head_record + 4];
                let word = u32::cast_from(index[usize::cast_from(row + div(j, 32usize))]);
                attends = (word >> u32::cast_from(j % 32)) & 1u32 == 1u32;
            } else {
                let distance = i - j;
                attends = distance >= self.min && distance <= self.max;
                if self.stride > 1 {
                    attends = attends && modulo(distance - self.residue, self.stride) == 0;
                }
                if !self.exact {
                    attends = attends && kept(index, head_record, i, j);
                }
            }
        }
        attends
    }
}

/// Whether any band of a head holds block `(i, j)`.
#[cube]
fn kept(index: &[i32], head_record: usize, i: i32, j: i32) -> bool {
    let mut kept = false;
    let distance = i - j;
    for band in 0..index[head_record + 1] {
        let at = head_record + ROW_WORDS + usize::cast_from(band) * BAND_WORDS;
        let along = select(index[at + 6] != 0, distance, j);
        if distance >= index[at]
            && distance <= index[at + 1]
            && j >= index[at + 2]
            && j < index[at + 3]
            && modulo(along - index[at + 5], index[at + 4]) == 0
        {
            kept = true;
        }
    }
    kept
}
