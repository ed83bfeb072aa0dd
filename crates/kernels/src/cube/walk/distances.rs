//! Which pairs of a visit attend.

use cubecl::prelude::*;

use super::lists::{div, modulo};
use crate::cube::index::{BAND_WORDS, ROW_WORDS};
use crate::cube::tile::Tile;

/// The distances `i - j` that a visit covers.
#[derive(CubeType, CubeTypeMut, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Distances {
    pub(in crate::cube) min: i32,
    pub(in crate::cube) max: i32,
    /// Distances are congruent to `residue` modulo this; 1 for all.
    pub(in crate::cube) stride: i32,
    pub(in crate::cube) residue: i32,
    /// Whether keys after the query are left out.
    pub(in crate::cube) causal: bool,
    /// Whether these distances say it all; if not, the bands of the head are asked for each pair.
    pub(in crate::cube) exact: bool,
}

/// All distances; the mask of the table says which pairs attend.
#[cube]
pub(super) fn everything(causal: bool) -> Distances {
    Distances {
        min: -0x4000_0000i32.runtime(),
        max: 0x4000_0000i32.runtime(),
        stride: 1i32.runtime(),
        residue: 0i32.runtime(),
        causal,
        exact: true.runtime(),
    }
}

/// Tokens, the end exclusive.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Tokens {
    start: u32,
    end: u32,
}

#[cube]
impl Tokens {
    /// How many of `rows` tokens in a row from `first` on come before them.
    pub(in crate::cube) fn before(&self, first: i32, #[comptime] rows: usize) -> u32 {
        places_before(self.start, first, rows)
    }

    /// How many of those come before their end.
    pub(in crate::cube) fn before_end(&self, first: i32, #[comptime] rows: usize) -> u32 {
        places_before(self.end, first, rows)
    }

    /// Whether `token` is among them, which may be [`NONE`](super::NONE).
    pub(in crate::cube) fn contain(&self, token: i32) -> bool {
        // No token is far beyond all ends as a number without a sign.
        let token = u32::cast_from(token);
        token >= self.start && token < self.end
    }
}

/// How many of `rows` tokens in a row from `first` on come before `token`.
#[cube]
fn places_before(token: u32, first: i32, #[comptime] rows: usize) -> u32 {
    let first = u32::cast_from(first);
    min(max(token, first) - first, comptime!(rows as u32))
}

/// The last block that may hold a token.
fn last_block(tile: Tile) -> i32 {
    i32::MAX / tile.block as i32
}

/// Block `block + by`, or the nearest from one before the first to one after the last.
#[cube]
fn shifted(block: i32, by: i32, #[comptime] tile: Tile) -> i32 {
    let last = comptime!(last_block(tile)).runtime();
    select(by > last - block, last + 1, max(block + by, -1i32))
}

#[cube]
impl Distances {
    /// Whether the tokens that a row attends are a [`Self::range`].
    pub(in crate::cube) fn are_ranges(&self, #[comptime] tile: Tile) -> bool {
        comptime!(!tile.table).runtime() && self.exact && self.stride == 1
    }

    /// The keys that query `token` attends, or the queries that attend key `token`; none for [`NONE`](super::NONE).
    pub(in crate::cube) fn range(
        &self,
        token: i32,
        #[comptime] query: bool,
        #[comptime] tile: Tile,
    ) -> Tokens {
        if comptime!(query) {
            let mut keys = blocks_from_to(token, -self.max, -self.min, tile);
            if self.causal {
                keys.end = min(keys.end, u32::cast_from(token + 1));
            }
            keys
        } else {
            let mut queries = blocks_from_to(token, self.min, self.max, tile);
            if self.causal {
                queries.start = max(queries.start, u32::cast_from(token));
            }
            queries
        }
    }

    /// Whether query token `q` attends key token `k`; both may be [`NONE`].
    pub(in crate::cube) fn attends(
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
                attends = masked(index, head_record, i, j);
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

/// Whether a head attends block `(i, j)`, by its row record alone.
#[cube]
pub(in crate::cube) fn attends_block(
    index: &[i32],
    head_record: usize,
    i: i32,
    j: i32,
    #[comptime] table: bool,
) -> bool {
    if comptime!(table) {
        masked(index, head_record, i, j)
    } else {
        kept(index, head_record, i, j)
    }
}

/// Whether the mask of a table holds block `(i, j)`.
#[cube]
fn masked(index: &[i32], head_record: usize, i: i32, j: i32) -> bool {
    let row = index[head_record + 3] + i * index[head_record + 4];
    let word = u32::cast_from(index[usize::cast_from(row + div(j, 32usize))]);
    (word >> u32::cast_from(j % 32)) & 1u32 == 1u32
}

/// The tokens of the blocks from `from` to `to` blocks after that of `token`; none for [`NONE`](super::NONE).
#[cube]
fn blocks_from_to(token: i32, from: i32, to: i32, #[comptime] tile: Tile) -> Tokens {
    let width = comptime!(tile.block as u32);
    let block = div(max(token, 0i32), tile.block);
    let first = max(shifted(block, from, tile), 0i32);
    let last = min(shifted(block, to, tile), comptime!(last_block(tile)));
    Tokens {
        start: u32::cast_from(first) * width,
        end: select(token < 0, 0u32, u32::cast_from(last + 1) * width),
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
