//! Which pairs of a visit attend: all of them for most visits, bit by bit at the edges.

use cubecl::prelude::*;

use super::scratch::Scratch;
use super::size::CubeSize;
use crate::cube::config::Config;
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, NONE, QueryTile, Reach, TokenRows, all_attend, rows_reach};

/// The bits of this unit's queries and the keys of `rows` that are visited. `reach` is that of the whole tile `own`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn attended_keys<N: Size>(
    index: &[i32],
    own: &QueryTile,
    distances: &Distances,
    queries: &Array<i32>,
    reach: &Reach,
    rows: &TokenRows,
    scratch: &Scratch<N>,
    #[comptime] config: Config,
) -> u32 {
    let (tile, size) = comptime!((config.owned, config.unit));
    let mut keys = Array::<i32>::new(comptime!(size.columns()));
    #[unroll]
    for j in 0..comptime!(size.columns()) {
        keys[j] = scratch.visited_token(j);
    }
    let keys_reach = rows_reach(index, rows, comptime!(config.visited));
    let mut bits = u32::MAX.runtime();
    if !all_attend(distances, reach, &keys_reach, tile) {
        let record = own.walk.record;
        bits = attended(distances, index, record, queries, &keys, true, tile, size);
    }
    bits
}

/// The bits of the pairs of this unit's rows, `i * columns + j`. `queries` says whether the owned rows are queries.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn attended(
    distances: &Distances,
    index: &[i32],
    head_record: usize,
    owned: &Array<i32>,
    visited: &Array<i32>,
    #[comptime] queries: bool,
    #[comptime] tile: Tile,
    #[comptime] size: CubeSize,
) -> u32 {
    let mut bits = u32::new(0);
    #[unroll]
    for i in 0..comptime!(size.rows()) {
        #[unroll]
        for j in 0..comptime!(size.columns()) {
            let attends = if comptime!(queries) {
                distances.attends(index, head_record, owned[i], visited[j], tile)
            } else {
                distances.attends(index, head_record, visited[j], owned[i], tile)
            };
            bits |= pair_bit(attends, i, j, size);
        }
    }
    bits
}

/// The bit of a pair that attends.
#[cube]
pub(super) fn pair_bit(
    attends: bool,
    #[comptime] i: usize,
    #[comptime] j: usize,
    #[comptime] size: CubeSize,
) -> u32 {
    let bit = comptime!(1u32 << (i * size.columns() + j));
    select(attends, u32::new(bit as i64), u32::new(0))
}

/// All pairs but those of visited rows without a token.
#[cube]
pub(super) fn all_but_none(visited: &Array<i32>, #[comptime] size: CubeSize) -> u32 {
    let mut bits = u32::MAX.runtime();
    #[unroll]
    for j in 0..comptime!(size.columns()) {
        let column =
            comptime!((0..size.rows()).fold(0u32, |bits, i| bits | 1 << (i * size.columns() + j)));
        if visited[j] == NONE {
            bits &= !column;
        }
    }
    bits
}

/// Whether the pair of score `n` attends.
#[cube]
pub(super) fn bit(bits: u32, #[comptime] n: usize) -> bool {
    bits & comptime!(1u32 << n) != 0u32
}
