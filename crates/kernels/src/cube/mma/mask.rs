//! Which pairs of a visit attend: all of them for most visits, bit by bit at the edges.

use cubecl::prelude::*;

use super::fragments::pair_row;
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, NONE, TokenRows};

/// Blocks and tokens of the rows of a tile, ends included.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Reach {
    pub(super) first_block: i32,
    pub(super) last_block: i32,
    pub(super) first_token: i32,
    pub(super) last_token: i32,
    /// Whether every row holds a token.
    pub(super) complete: bool,
}

/// Whether blocks fill the rows of a tile, but for the last part of a block.
fn fills(tile: Tile) -> bool {
    tile.slots() * tile.slot_rows() == tile.rows
}

/// The reach of the rows of a visit.
#[cube]
pub(super) fn reach(index: &[i32], rows: &TokenRows, #[comptime] tile: Tile) -> Reach {
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

/// Whether all pairs of a visit are known to attend. `owned` may reach further than its rows; `tile` is its tile.
#[cube]
pub(super) fn all_attend(
    distances: &Distances,
    queries: &Reach,
    keys: &Reach,
    one_query_block: bool,
    #[comptime] tile: Tile,
) -> bool {
    // The list of a table is the union of those of the tile's blocks.
    let known = comptime!(!tile.table || tile.slots() == 1).runtime();
    known
        && distances.exact
        && (!distances.causal || keys.last_token <= queries.first_token)
        && queries.first_block - keys.last_block >= distances.min
        && queries.last_block - keys.first_block <= distances.max
        // With diagonal strides one query block visits what is along its own diagonal.
        && (distances.stride == 1 || one_query_block)
}

/// The bits of the pairs of `tiles` tiles of 8 visited rows from `first` on, as this unit holds them. `queries` says
/// whether the owned rows are queries.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn attended(
    distances: &Distances,
    index: &[i32],
    head_record: usize,
    owned: &Array<i32>,
    visited: &Shared<[i32]>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] queries: bool,
    #[comptime] tile: Tile,
) -> u32 {
    let mut bits = u32::new(0);
    for n in 0..comptime!(2 * tiles as u32) {
        // Element `n % 2` of the pairs of tile `n / 2`.
        let at = n / 2 * 8 + n % 2 + UNIT_POS % 4u32 * 2u32;
        let token = visited[first + at as usize];
        #[unroll]
        for half in 0..2usize {
            let attends = if comptime!(queries) {
                distances.attends(index, head_record, owned[half], token, tile)
            } else {
                distances.attends(index, head_record, token, owned[half], tile)
            };
            let bit = n / 2 * 4 + n % 2 + comptime!(2 * half as u32);
            bits |= select(attends, 1u32 << bit, u32::new(0));
        }
    }
    bits
}

/// Whether the pair of element `element` of pair `pair` attends.
#[cube]
pub(super) fn bit(bits: u32, #[comptime] pair: usize, #[comptime] element: usize) -> bool {
    bits & comptime!(1u32 << (2 * pair + element)) != 0u32
}

/// Tokens of this unit's two rows: of `tokens`, those before `end`.
#[cube]
pub(super) fn own_rows(tokens: &Shared<[i32]>, end: i32) -> Array<i32> {
    let mut own = Array::<i32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let token = tokens[pair_row(half) as usize];
        own[half] = select(token < end, token, NONE);
    }
    own
}
