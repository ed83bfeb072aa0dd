//! How far the rows of a tile reach: most visits are known to attend as a whole.

use cubecl::prelude::*;

use super::distances::Distances;
use super::keys::KeyTile;
use super::lists::{TokenRows, modulo};
use super::queries::QueryTile;
use crate::cube::tile::Tile;

/// Blocks and tokens of the rows of a tile, ends included.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Reach {
    pub(in crate::cube) first_block: i32,
    pub(in crate::cube) last_block: i32,
    pub(in crate::cube) first_token: i32,
    pub(in crate::cube) last_token: i32,
    /// Whether every row holds a token.
    pub(in crate::cube) complete: bool,
}

#[cube]
impl Reach {
    /// Whether `rows` rows hold tokens in a row.
    pub(in crate::cube) fn in_a_row(&self, #[comptime] rows: usize) -> bool {
        self.complete && self.last_token - self.first_token == comptime!(rows as i32 - 1)
    }
}

/// Whether blocks fill the rows of a tile, but for the last part of a block.
fn fills(tile: Tile) -> bool {
    tile.slots() * tile.slot_rows() == tile.rows
}

/// The reach of the rows of a visit.
#[cube]
pub(in crate::cube) fn rows_reach(
    index: &[i32],
    rows: &TokenRows,
    #[comptime] tile: Tile,
) -> Reach {
    let slots = comptime!(tile.slots() as i32);
    let mut first = rows.blocks.first;
    let mut last = first + comptime!(slots - 1) * rows.blocks.step;
    let enough = rows.blocks.count >= slots;
    if comptime!(tile.table) && enough {
        // The list of a table is ascending.
        last = index[usize::cast_from(first + comptime!(slots - 1))];
        first = index[usize::cast_from(first)];
    }
    let end = rows.offset + comptime!(tile.slot_rows() as i32);
    let first_token = first * comptime!(tile.block as i32) + rows.offset;
    let last_token = last * comptime!(tile.block as i32) + end - 1;
    let complete = comptime!(fills(tile)).runtime()
        && enough
        && end <= comptime!(tile.block as i32)
        && first_token >= rows.start
        && last_token < rows.end;
    Reach {
        first_block: first,
        last_block: last,
        first_token,
        last_token,
        complete,
    }
}

/// Whether all pairs of a visit are known to attend. What is owned may reach further than its rows; `tile` is its tile.
#[cube]
pub(in crate::cube) fn all_attend(
    distances: &Distances,
    queries: &Reach,
    keys: &Reach,
    #[comptime] tile: Tile,
) -> bool {
    // The list of a table is the union of those of the tile's blocks.
    let known = comptime!(!tile.table || tile.slots() == 1).runtime();
    let mut along = true;
    if distances.stride > 1 {
        // The keys are those of one diagonal of the tile, and all of it is that of a query block alone.
        let from = queries.first_block - keys.first_block - distances.residue;
        along = queries.first_block == queries.last_block && modulo(from, distances.stride) == 0;
    }
    known
        && along
        && queries.complete
        && keys.complete
        && distances.exact
        && (!distances.causal || keys.last_token <= queries.first_token)
        && queries.first_block - keys.last_block >= distances.min
        && queries.last_block - keys.first_block <= distances.max
}

/// Whether no pair of a visit is known to attend.
#[cube]
pub(in crate::cube) fn none_attend(distances: &Distances, queries: &Reach, keys: &Reach) -> bool {
    // Of rows that are not complete, the list of a table may not be looked up.
    keys.complete
        && queries.complete
        && ((distances.causal && keys.first_token > queries.last_token)
            || queries.last_block - keys.first_block < distances.min
            || queries.first_block - keys.last_block > distances.max)
}

/// `rows` of the queries of a tile from row `first` on, tokens in a row, be they in the sequence or not.
#[cube]
pub(in crate::cube) fn query_rows_reach(
    own: &QueryTile,
    first: u32,
    #[comptime] rows: usize,
    #[comptime] tile: Tile,
) -> Reach {
    let block = comptime!(tile.block as i32);
    let first_token = own.rows.blocks.first * block + own.rows.offset + i32::cast_from(first);
    let last_token = first_token + comptime!(rows as i32 - 1);
    Reach {
        first_block: first_token / block,
        last_block: last_token / block,
        first_token,
        last_token,
        complete: true.runtime(),
    }
}

/// The queries of the tile, as far as its walk goes.
#[cube]
pub(in crate::cube) fn query_reach(own: &QueryTile, #[comptime] tile: Tile) -> Reach {
    let first_token = own.walk.first * comptime!(tile.block as i32) + own.rows.offset;
    Reach {
        first_block: own.walk.first,
        last_block: own.walk.last,
        first_token: max(first_token, own.span.q_start),
        last_token: own.span.q_end - 1,
        complete: true.runtime(),
    }
}

/// The reach of a key tile; of one that is empty nothing is asked, and nothing is looked up: it is of no class.
#[cube]
pub(in crate::cube) fn key_reach(own: &KeyTile, index: &[i32], #[comptime] tile: Tile) -> Reach {
    let last_member = min(last_of(own, tile), own.end) - 1;
    let mut first_block = own.member;
    let mut last_block = last_member;
    if !comptime!(tile.table) && own.class >= 0 {
        first_block = own.column(index, own.member);
        last_block = own.column(index, last_member);
    }
    Reach {
        first_block,
        last_block,
        first_token: first_block * comptime!(tile.block as i32) + own.offset,
        last_token: last_block * comptime!(tile.block as i32)
            + own.offset
            + comptime!(tile.slot_rows() as i32 - 1),
        complete: true.runtime(),
    }
}

/// `rows` of the keys of a tile from row `first` on, where those are whole blocks or a part of one; else all of the tile.
#[cube]
pub(in crate::cube) fn key_rows_reach(
    own: &KeyTile,
    index: &[i32],
    #[comptime] first: usize,
    #[comptime] rows: usize,
    #[comptime] tile: Tile,
) -> Reach {
    let block = comptime!(tile.block);
    if comptime!(tile.slots() == 1) {
        let all = key_reach(own, index, tile);
        Reach {
            first_block: all.first_block,
            last_block: all.last_block,
            first_token: all.first_token + comptime!(first as i32),
            last_token: all.first_token + comptime!((first + rows) as i32 - 1),
            complete: all.complete,
        }
    } else if comptime!(first % block == 0 && rows % block == 0) {
        let part = KeyTile {
            record: own.record,
            class: own.class,
            member: own.member + comptime!((first / block) as i32),
            end: own.end,
            offset: own.offset,
        };
        key_reach(&part, index, comptime!(Tile { rows, ..tile }))
    } else {
        key_reach(own, index, tile)
    }
}

#[cube]
fn last_of(own: &KeyTile, #[comptime] tile: Tile) -> i32 {
    own.member + comptime!(tile.slots() as i32)
}
