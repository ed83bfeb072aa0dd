//! Which pairs of a visit attend: all of them for most visits, bit by bit at the edges.

use cubecl::prelude::*;

use super::fragments::Pair;
use super::products::{Products, column, own_row};
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
    #[comptime] products: Products,
) -> Array<u32> {
    let (rows, elements) = comptime!((products.rows(parts), 2 * products.row_pairs(tiles) as u32));
    let mut all = Array::<u32>::new(parts);
    #[unroll]
    for part in 0..parts {
        all[part] = 0u32.runtime();
    }
    if distances.are_ranges(tile) {
        #[unroll]
        for row in 0..rows {
            let range = distances.range(owned[row], queries, tile);
            #[unroll]
            for n in 0..elements {
                let attends = range.contain(visited[first + column(n, products) as usize]);
                all[comptime!(row * parts / rows)] |= pair_bit(attends, n, row, products);
            }
        }
    } else {
        for n in 0..elements {
            let token = visited[first + column(n, products) as usize];
            #[unroll]
            for row in 0..rows {
                let attends = if comptime!(queries) {
                    distances.attends(index, head_record, owned[row], token, tile)
                } else {
                    distances.attends(index, head_record, token, owned[row], tile)
                };
                all[comptime!(row * parts / rows)] |= pair_bit(attends, n, row, products);
            }
        }
    }
    all
}

/// The same for products of one plane with `rows` visited rows whose tokens are in a row from `first` on, of distances that are ranges:
/// no token is looked at.
#[cube]
pub(in crate::cube) fn attended_in_a_row(
    distances: &Distances,
    owned: &Array<i32>,
    first: i32,
    #[comptime] rows: usize,
    #[comptime] queries: bool,
    #[comptime] tile: Tile,
) -> Array<u32> {
    let mut all = Array::<u32>::new(1usize);
    all[0usize] = 0u32.runtime();
    #[unroll]
    for row in 0..2usize {
        let range = distances.range(owned[row], queries, tile);
        let (from, to) = (range.before(first, rows), range.before_end(first, rows));
        #[unroll]
        for n in 0..2u32 {
            let place = column(n, Products::Mma);
            let attended = tiles_before(to, place) & (tiles_before(from, place) ^ u32::MAX);
            all[0usize] |= attended << comptime!(n + 2 * row as u32);
        }
    }
    all
}

/// A bit for each tile of 8 columns, four apart, whose column `column` comes before `end`.
#[cube]
// Kernels have no `div_ceil`.
#[allow(clippy::manual_div_ceil)]
fn tiles_before(end: u32, column: u32) -> u32 {
    let tiles = (max(end, column) - column + 7u32) / 8u32;
    // A word has no more than eight.
    let bits = select(
        tiles >= 8u32,
        u32::MAX,
        (1u32 << (min(tiles, 7u32) * 4u32)) - 1u32,
    );
    bits & 0x1111_1111u32
}

/// The bit of this unit's element `n` of row `row`, where it attends: pairs are counted as they lie in sums.
#[cube]
pub(super) fn pair_bit(
    attends: bool,
    n: u32,
    #[comptime] row: usize,
    #[comptime] products: Products,
) -> u32 {
    let bit = if comptime!(products == Products::Wmma) {
        n
    } else {
        n / 2 * 4 + n % 2 + comptime!(2 * (row as u32 % 2))
    };
    select(attends, 1u32 << bit, u32::new(0))
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

/// Tokens of this unit's rows: of `tokens`, those before `end`.
#[cube]
pub(in crate::cube) fn own_rows(
    tokens: &Shared<[i32]>,
    end: i32,
    #[comptime] parts: usize,
    #[comptime] products: Products,
) -> Array<i32> {
    let rows = comptime!(products.rows(parts));
    let mut own = Array::<i32>::new(rows);
    #[unroll]
    for row in 0..rows {
        let token = tokens[own_row(row, parts, products) as usize];
        own[row] = select(token < end, token, NONE);
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
