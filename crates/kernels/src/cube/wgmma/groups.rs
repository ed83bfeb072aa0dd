//! What each group of a cube attends of a visit: all of it, nothing, or a part that its mask says.
//!
//! A cube visits what any of its rows attends. At the ends of windows, and on the diagonal, that is much more than each of its groups does.

use cubecl::prelude::*;

use super::size::ROWS;
use crate::cube::mma::visit::Visit;
use crate::cube::tile::Tile;
use crate::cube::walk::{
    KeyTile, QueryTile, Reach, all_attend, key_rows_reach, none_attend, query_rows_reach,
};

/// The bit of the first group that attends all of a visit; those of the others follow.
pub(super) const ALL: u32 = 1 << 8;
/// The bit of the first group that attends nothing of it.
pub(super) const NOTHING: u32 = 1 << 16;

/// Groups of a cube.
fn groups(tile: Tile) -> usize {
    tile.rows / ROWS
}

/// The bits of a group: `queries` or `keys` are its rows, and the others those of the visit. `tile` is that of the cube.
#[cube]
fn attending(
    visit: &Visit,
    group: u32,
    queries: &Reach,
    keys: &Reach,
    #[comptime] tile: Tile,
) -> u32 {
    // A visit of which all attends comes without the tokens that masks need.
    let all = visit.all || all_attend(&visit.distances, queries, keys, tile);
    let nothing = !visit.all && none_attend(&visit.distances, queries, keys);
    select(all, ALL << group, 0u32) | select(nothing, NOTHING << group, 0u32)
}

/// The bits of all groups of a tile of queries, for a visit of `keys`.
#[cube]
pub(super) fn queries_attending(
    visit: &Visit,
    own: &QueryTile,
    keys: &Reach,
    #[comptime] tile: Tile,
) -> u32 {
    let mut bits = 0u32.runtime();
    for group in 0..comptime!(groups(tile) as u32) {
        let queries = query_rows_reach(own, group * comptime!(ROWS as u32), ROWS, tile);
        bits |= attending(visit, group, &queries, keys, tile);
    }
    bits
}

/// The keys of each group of a tile.
#[cube]
pub(super) fn keys_of_groups(
    own: &KeyTile,
    index: &[i32],
    #[comptime] tile: Tile,
) -> Sequence<Reach> {
    let mut keys = Sequence::<Reach>::new();
    #[unroll]
    for group in 0..comptime!(groups(tile)) {
        let first = comptime!(group * ROWS);
        keys.push(key_rows_reach(own, index, first, ROWS, tile));
    }
    keys
}

/// The bits of all groups of a tile of keys, for a visit of `queries`.
#[cube]
pub(super) fn keys_attending(
    visit: &Visit,
    queries: &Reach,
    keys_of: &Sequence<Reach>,
    #[comptime] tile: Tile,
) -> u32 {
    let mut bits = 0u32.runtime();
    #[unroll]
    for group in 0..comptime!(groups(tile)) {
        let keys = keys_of.index(group);
        bits |= attending(visit, comptime!(group as u32), queries, keys, tile);
    }
    bits
}
