//! The keys that a tile of rows visits: pages of its list, a few at a time or one in parts.

use cubecl::prelude::*;

use super::tile::{GroupRows, Part};
use crate::cube::tile::Tile;
use crate::cube::walk::{NONE, attends_block, div};

/// The position of a visited row that holds no key: after every query.
pub(in crate::cube) const NOWHERE: i32 = i32::MAX;

/// What a visit is about, for one or more visits at a time, each in a place of its own.
#[derive(CubeType)]
pub(in crate::cube) struct VisitedPages {
    /// The row of the pool of each visited row; [`NONE`] where nothing is to be read.
    pub(in crate::cube) tokens: Shared<[i32]>,
    /// The position of each visited row's key, or [`NOWHERE`].
    positions: Shared<[i32]>,
    /// For each owned row a bit for each slot of the visit, whether the row attends the slot's block.
    kept: Shared<[u32]>,
    /// The bits of this unit's row at the visit that was looked up last.
    bits: u32,
    /// Where the row record of this unit's row is.
    record: usize,
    /// The block of its query, or [`NONE`].
    block: i32,
    /// Rows that the cube owns.
    #[cube(comptime)]
    rows: usize,
    #[cube(comptime)]
    visited: Tile,
}

/// Room for `places` visits of `visited` by a tile of `rows` rows.
#[cube]
pub(in crate::cube) fn visited_pages(
    #[comptime] rows: usize,
    #[comptime] visited: Tile,
    #[comptime] places: usize,
) -> VisitedPages {
    VisitedPages {
        tokens: Shared::<[i32]>::new_slice(comptime!(places * visited.rows)),
        positions: Shared::<[i32]>::new_slice(comptime!(places * visited.rows)),
        kept: Shared::<[u32]>::new_slice(comptime!(places * rows)),
        bits: 0u32.runtime(),
        record: 0usize.runtime(),
        block: NONE.runtime(),
        rows,
        visited,
    }
}

/// Bytes of shared memory that it takes.
pub(in crate::cube) fn pages_bytes(rows: usize, visited: usize, places: usize) -> usize {
    places * (2 * visited + rows) * 4
}

#[cube]
impl VisitedPages {
    /// Sets the tile of rows from `first` on.
    pub(in crate::cube) fn own(&mut self, rows: &GroupRows, first: u32, index: &[i32]) {
        // Units beyond the rows look up a head as well: nothing waits for a branch.
        let row = rows.row(first + UNIT_POS);
        self.record = usize::cast_from(index[row.head]);
        self.block = select(
            row.exists,
            div(max(rows.position(&row), 0i32), self.visited.block),
            NONE,
        );
    }

    /// Looks up visit `visit` of a part, for `place`. It is there after the next barrier; there is one inside.
    pub(in crate::cube) fn look_up(
        &mut self,
        part: &Part,
        table: &[i32],
        index: &[i32],
        kv_len: i32,
        visit: i32,
        place: u32,
    ) {
        let visited = comptime!(self.visited);
        let (slots, parts) = comptime!((visited.slots(), visited.parts()));
        let first = part.first + div(visit, parts) * comptime!(slots as i32);
        let offset = visit % comptime!(parts as i32) * comptime!(visited.rows as i32);
        if UNIT_POS < comptime!(self.rows as u32) {
            if visit % comptime!(parts as i32) == 0i32 {
                self.bits = 0u32.runtime();
                if self.block != NONE {
                    for slot in 0..min(part.end - first, comptime!(slots as i32)) {
                        let block = part.list.block(table, first + slot);
                        if attends_block(index, self.record, self.block, block, visited.table) {
                            self.bits |= 1u32 << u32::cast_from(slot);
                        }
                    }
                }
            }
            self.kept[(place * comptime!(self.rows as u32) + UNIT_POS) as usize] = self.bits;
        }
        sync_cube();
        if UNIT_POS < comptime!(visited.rows as u32) {
            let width = comptime!(visited.slot_rows() as u32);
            let slot = UNIT_POS / width;
            let entry = first + i32::cast_from(slot);
            let within = i32::cast_from(UNIT_POS % width) + offset;
            let mut token = NONE.runtime();
            let mut position = NOWHERE.runtime();
            if slot < comptime!(slots as u32)
                && entry < part.end
                && within < comptime!(visited.block as i32)
            {
                let here = part.list.block(table, entry) * comptime!(visited.block as i32) + within;
                if here < kv_len {
                    position = here;
                    // Pages that no row attends may hold anything.
                    if self.any_keeps(place, slot) {
                        token =
                            part.list.page(table, entry) * comptime!(visited.block as i32) + within;
                    }
                }
            }
            let at = (place * comptime!(visited.rows as u32) + UNIT_POS) as usize;
            self.tokens[at] = token;
            self.positions[at] = position;
        }
    }

    /// Whether a row attends the block of a slot.
    fn any_keeps(&self, place: u32, slot: u32) -> bool {
        let rows = comptime!(self.rows);
        let mut bits = 0u32.runtime();
        #[unroll]
        for row in 0..rows {
            bits |= self.kept[place as usize * rows + row];
        }
        (bits >> slot) & 1u32 == 1u32
    }

    /// What owned row `row` attends of the visit in `place`. `limit` is the position of its query; [`NONE`] where there is none.
    pub(in crate::cube) fn attended(&self, place: u32, row: u32, limit: i32) -> Attended {
        let visited = comptime!(self.visited);
        let bits = self.kept[(place * comptime!(self.rows as u32) + row) as usize];
        let end = (place + 1u32) * comptime!(visited.rows as u32);
        // The last visited row is that of the last key, if every row holds one.
        let last = self.positions[(end - 1u32) as usize];
        let slots = comptime!(u32::MAX >> (32 - visited.slots()));
        Attended {
            bits,
            limit,
            // Of a row without a query anything may be computed.
            all: limit == NONE || (bits == slots && last <= limit),
        }
    }

    /// Whether a row attends visited row `at` of the visit in `place`.
    pub(in crate::cube) fn attends(&self, place: u32, attended: &Attended, at: u32) -> bool {
        let visited = comptime!(self.visited);
        let position = self.positions[(place * comptime!(visited.rows as u32) + at) as usize];
        let slot = min(
            at / comptime!(visited.slot_rows() as u32),
            comptime!(visited.slots() as u32 - 1),
        );
        position <= attended.limit && (attended.bits >> slot) & 1u32 == 1u32
    }
}

/// What a row attends of a visit.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Attended {
    bits: u32,
    limit: i32,
    /// All visited rows.
    pub(in crate::cube) all: bool,
}
