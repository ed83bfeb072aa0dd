//! Lists of blocks and the tokens of their rows.

use cubecl::prelude::*;

use crate::cube::index::{HEADER_WORDS, SEQUENCE_WORDS};
use crate::cube::tile::Tile;

/// No token: a row of a tile that holds nothing.
pub(in crate::cube) const NONE: i32 = -1;

/// Where the tokens of a sequence stand, and where their rows are; ends are exclusive.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Span {
    /// Item of the batch.
    pub(in crate::cube) item: usize,
    /// The position that row 0 of the queries would have; below 0 where the sequence is not the first of its item.
    pub(in crate::cube) q_zero: i32,
    pub(in crate::cube) q_start: i32,
    pub(in crate::cube) q_end: i32,
    /// End of the rows that are its own, which are padding from `q_end` on.
    pub(in crate::cube) q_rows_end: i32,
    /// As `q_zero`, of the keys.
    pub(in crate::cube) kv_zero: i32,
    pub(in crate::cube) kv_start: i32,
    pub(in crate::cube) kv_end: i32,
    /// As `q_rows_end`, of the keys.
    pub(in crate::cube) kv_rows_end: i32,
}

/// Some blocks: `first, first + step, ..`, or `count` entries of the index buffer from `first` on.
#[derive(CubeType, CubeTypeMut, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct BlockList {
    pub(in crate::cube) first: i32,
    pub(in crate::cube) step: i32,
    pub(in crate::cube) count: i32,
}

/// The tokens of a tile, row by row.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct TokenRows {
    /// The blocks from the first row on.
    pub(in crate::cube) blocks: BlockList,
    /// Tokens of each block before the first row.
    pub(in crate::cube) offset: i32,
    /// Tokens that exist.
    pub(in crate::cube) start: i32,
    /// End of the tokens that exist.
    pub(in crate::cube) end: i32,
}

#[cube]
pub(in crate::cube) fn span(index: &[i32], sequence: usize) -> Span {
    let at = HEADER_WORDS + sequence * SEQUENCE_WORDS;
    Span {
        item: usize::cast_from(index[at]),
        q_zero: index[at + 1],
        q_start: index[at + 2],
        q_end: index[at + 3],
        q_rows_end: index[at + 4],
        kv_zero: index[at + 5],
        kv_start: index[at + 6],
        kv_end: index[at + 7],
        kv_rows_end: index[at + 8],
    }
}

/// Place of the records of the query heads, behind which are those of the groups.
#[cube]
pub(in crate::cube) fn heads_at(index: &[i32]) -> usize {
    HEADER_WORDS + usize::cast_from(index[0]) * SEQUENCE_WORDS
}

/// `a / b` for `a >= 0`.
#[cube]
pub(in crate::cube) fn div(a: i32, #[comptime] b: usize) -> i32 {
    i32::cast_from(u32::cast_from(a) / comptime!(b as u32))
}

/// `a / b`, upwards, for `a >= 0`.
#[cube]
pub(in crate::cube) fn div_up(a: i32, #[comptime] b: usize) -> i32 {
    div(a + comptime!(b as i32 - 1), b)
}

/// The non-negative remainder.
#[cube]
pub(super) fn modulo(a: i32, b: i32) -> i32 {
    let rest = a % b;
    select(rest < 0, rest + b, rest)
}

/// `a / b` upwards, 0 for `a <= 0`.
#[cube]
pub(super) fn steps(a: i32, b: i32) -> i32 {
    max(a + b - 1, 0) / b
}

/// Parts of block `block` before the one that holds token `start`, where the block holds it.
#[cube]
pub(super) fn parts_before(block: i32, start: i32, #[comptime] tile: Tile) -> i32 {
    div(
        max(start - block * comptime!(tile.block as i32), 0),
        tile.rows,
    )
}

/// Parts of block `block` after the last one that holds a token before `end`.
#[cube]
pub(super) fn parts_after(block: i32, end: i32, #[comptime] tile: Tile) -> i32 {
    let tokens = min(
        end - block * comptime!(tile.block as i32),
        comptime!(tile.block as i32),
    );
    comptime!(tile.parts() as i32) - div_up(tokens, tile.rows)
}

/// Whether the tokens of a sequence leave out parts of the blocks at their ends. Lists of tables take their blocks whole.
fn leaves_parts_out(tile: Tile) -> bool {
    tile.parts() > 1 && !tile.table
}

#[cube]
impl BlockList {
    /// Visits that the tokens `start..end` of the list's blocks take, a tile of blocks or a part of one each.
    pub(in crate::cube) fn visits(&self, start: i32, end: i32, #[comptime] tile: Tile) -> i32 {
        let count = max(self.count, 0);
        let mut visits = div_up(count, comptime!(tile.slots())) * comptime!(tile.parts() as i32);
        if comptime!(leaves_parts_out(tile)) {
            let last = self.first + (count - 1) * self.step;
            let outside = parts_before(self.first, start, tile) + parts_after(last, end, tile);
            visits = select(count > 0, visits - outside, 0);
        }
        visits
    }

    /// The rows of one visit.
    pub(in crate::cube) fn rows(
        &self,
        visit: i32,
        start: i32,
        end: i32,
        #[comptime] tile: Tile,
    ) -> TokenRows {
        let parts = comptime!(tile.parts());
        let mut part = visit;
        if comptime!(leaves_parts_out(tile)) {
            part += parts_before(self.first, start, tile);
        }
        let done = div(part, parts) * comptime!(tile.slots() as i32);
        TokenRows {
            blocks: BlockList {
                first: self.first + done * self.step,
                step: self.step,
                count: self.count - done,
            },
            offset: (part % comptime!(parts as i32)) * comptime!(tile.rows as i32),
            start,
            end,
        }
    }
}

#[cube]
impl TokenRows {
    /// The token of a row, or [`NONE`].
    pub(in crate::cube) fn token(&self, index: &[i32], row: u32, #[comptime] tile: Tile) -> i32 {
        let here = self.position(index, row, tile);
        let mut token = NONE.runtime();
        if here >= self.start && here < self.end {
            token = here;
        }
        token
    }

    /// The position of a row, which may have no token; [`NONE`] where no block has it.
    pub(in crate::cube) fn position(&self, index: &[i32], row: u32, #[comptime] tile: Tile) -> i32 {
        let width = comptime!(tile.slot_rows() as u32);
        let slot = i32::cast_from(row / width);
        let within = i32::cast_from(row % width) + self.offset;
        let mut position = NONE.runtime();
        if slot < min(self.blocks.count, comptime!(tile.slots() as i32))
            && within < comptime!(tile.block as i32)
        {
            let block = if comptime!(tile.table) {
                index[usize::cast_from(self.blocks.first + slot)]
            } else {
                self.blocks.first + slot * self.blocks.step
            };
            position = block * comptime!(tile.block as i32) + within;
        }
        position
    }
}
