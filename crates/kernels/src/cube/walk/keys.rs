//! Which queries a tile of keys visits.

use cubecl::prelude::*;

use super::distances::{Distances, everything};
use super::lists::{BlockList, NONE, Span, div, div_up, parts_after, parts_before, steps};
use super::queries::Visits;
use crate::cube::index::{CLASS_WORDS, COLUMN_WORDS, OTHERS};
use crate::cube::tile::Tile;

/// A key tile: consecutive members of one class of columns, or a part of one.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct KeyTile {
    /// Place of the group's column record.
    pub(in crate::cube) record: usize,
    /// Class of the members; -1 where the sequence has no such tile.
    pub(in crate::cube) class: i32,
    /// The first member.
    pub(in crate::cube) member: i32,
    /// End of the members that the sequence holds.
    pub(in crate::cube) end: i32,
    /// Tokens of each block before the first row.
    pub(in crate::cube) offset: i32,
}

#[cube]
pub(in crate::cube) fn key_tile(
    index: &[i32],
    groups_at: usize,
    kv_head: usize,
    tile_index: i32,
    span: &Span,
    #[comptime] tile: Tile,
) -> KeyTile {
    let (kv_start, rows_end) = (span.kv_start, span.kv_rows_end);
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
        let mut visits = div_up(max(end - from, 0), tile.slots()) * comptime!(tile.parts() as i32);
        let mut skipped = 0i32;
        if comptime!(tile.parts() > 1) && from < end {
            let mut first = from;
            let mut last = end - 1;
            if !comptime!(tile.table) {
                first = column(index, record, class, first);
                last = column(index, record, class, last);
            }
            skipped = parts_before(first, kv_start, tile);
            visits -= skipped + parts_after(last, rows_end, tile);
        }
        if found.class < 0 {
            if left < visits {
                let parts = comptime!(tile.parts());
                let part = left + skipped;
                found.class = class;
                found.member = from + div(part, parts) * slots;
                found.end = end;
                found.offset = (part % comptime!(parts as i32)) * comptime!(tile.rows as i32);
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

/// The column of a member.
#[cube]
fn column(index: &[i32], record: usize, class: i32, member: i32) -> i32 {
    let at = class_at(index, record, class);
    let stride = index[at + 2];
    let mut column = index[at + 1] + member * stride;
    if index[at] == OTHERS {
        // Residues in order, each one that is not ours moves us one on.
        let others = stride - class;
        let mut residue = member % others;
        for earlier in 0..class {
            if residue >= index[class_at(index, record, earlier) + 1] {
                residue += 1;
            }
        }
        column = member / others * stride + residue;
    }
    column
}

#[cube]
impl KeyTile {
    /// The column of a member.
    pub(in crate::cube) fn column(&self, index: &[i32], member: i32) -> i32 {
        column(index, self.record, self.class, member)
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
    pub(in crate::cube) fn token(
        &self,
        index: &[i32],
        row: u32,
        kv_start: i32,
        rows_end: i32,
        #[comptime] tile: Tile,
    ) -> i32 {
        let here = self.position(index, row, tile);
        let mut token = NONE.runtime();
        if here >= kv_start && here < rows_end {
            token = here;
        }
        token
    }

    /// The position of a row, which may have no token; [`NONE`] where no column of the tile has it.
    pub(in crate::cube) fn position(&self, index: &[i32], row: u32, #[comptime] tile: Tile) -> i32 {
        let width = comptime!(tile.slot_rows() as u32);
        let slot = i32::cast_from(row / width);
        let within = i32::cast_from(row % width) + self.offset;
        let member = self.member + slot;
        let mut position = NONE.runtime();
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
            if ours {
                position = column * comptime!(tile.block as i32) + within;
            }
        }
        position
    }

    /// Intervals of distances at which a query head of the group attends the tile.
    pub(in crate::cube) fn intervals(
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
    pub(in crate::cube) fn visits(
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
            // Tiles of padding have no list, nor have sequences without tokens.
            let mut first = 0i32;
            let mut count = 0i32;
            if self.member * comptime!(tile.block as i32) < span.kv_end
                && span.kv_start < span.kv_end
                && span.q_start < span.q_end
            {
                first = index[at];
                count = index[at + 1];
            }
            Visits {
                blocks: BlockList {
                    first,
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
