//! Which pairs of a visit attend: all of them for most visits, bit by bit at the edges.

use cubecl::prelude::*;

use super::fragments::{Pair, pair_row};
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, NONE};

/// The bits of the pairs of `tiles` tiles of 8 visited rows from `first` on, as this unit holds them. `queries` says
/// whether the owned rows are queries.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn attended(
    distances: &Distances,
    index: &[i32],
    head_record: usize,
    owned: &Array<i32>,
    visited: &Shared<[i32]>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] parts: usize,
    #[comptime] queries: bool,
    #[comptime] tile: Tile,
) -> Array<u32> {
    let mut all = Array::<u32>::new(parts);
    #[unroll]
    for part in 0..parts {
        all[part] = 0u32.runtime();
    }
    if distances.are_ranges(tile) {
        #[unroll]
        for half in 0..comptime!(2 * parts) {
            let range = distances.range(owned[half], queries, tile);
            #[unroll]
            for n in 0..comptime!(2 * tiles as u32) {
                let attends = range.contain(visited[visited_row(first, n)]);
                all[comptime!(half / 2)] |= pair_bit(attends, n, half);
            }
        }
    } else {
        for n in 0..comptime!(2 * tiles as u32) {
            let token = visited[visited_row(first, n)];
            #[unroll]
            for half in 0..comptime!(2 * parts) {
                let attends = if comptime!(queries) {
                    distances.attends(index, head_record, owned[half], token, tile)
                } else {
                    distances.attends(index, head_record, token, owned[half], tile)
                };
                all[comptime!(half / 2)] |= pair_bit(attends, n, half);
            }
        }
    }
    all
}

/// The bit of element `n % 2` of this unit's pair of tile `n / 2` and of `half`, where it attends.
#[cube]
fn pair_bit(attends: bool, n: u32, #[comptime] half: usize) -> u32 {
    let bit = n / 2 * 4 + n % 2 + comptime!(2 * (half as u32 % 2));
    select(attends, 1u32 << bit, u32::new(0))
}

/// The visited row of element `n % 2` of this unit's pairs of tile `n / 2`.
#[cube]
fn visited_row(first: usize, n: u32) -> usize {
    first + (n / 2 * 8 + n % 2 + UNIT_POS % 4u32 * 2u32) as usize
}

/// Whether the pair of element `element` of pair `pair` attends, of sums of `tiles` tiles.
#[cube]
fn bit(
    bits: &Array<u32>,
    #[comptime] pair: usize,
    #[comptime] element: usize,
    #[comptime] tiles: usize,
) -> bool {
    let n = comptime!(pair % (2 * tiles));
    bits[comptime!(pair / (2 * tiles))] & comptime!(1u32 << (2 * n + element)) != 0u32
}

/// Tokens of this unit's rows, two of each tile: of `tokens`, those before `end`.
#[cube]
pub(in crate::cube) fn own_rows(
    tokens: &Shared<[i32]>,
    end: i32,
    #[comptime] parts: usize,
) -> Array<i32> {
    let mut own = Array::<i32>::new(comptime!(2 * parts));
    #[unroll]
    for half in 0..comptime!(2 * parts) {
        let token = tokens[pair_row(half, parts) as usize];
        own[half] = select(token < end, token, NONE);
    }
    own
}

/// Puts `other` in the place of pairs that do not attend, of sums of `tiles` tiles.
#[cube]
pub(in crate::cube) fn keep_attended(
    sums: &mut Array<Pair<f32>>,
    bits: &Array<u32>,
    other: f32,
    #[comptime] tiles: usize,
    #[comptime] parts: usize,
) {
    #[unroll]
    for n in 0..comptime!(2 * parts * tiles) {
        let mut pair = sums[n];
        #[unroll]
        for e in 0..2usize {
            pair.insert(e, select(bit(bits, n, e, tiles), pair.extract(e), other));
        }
        sums[n] = pair;
    }
}
