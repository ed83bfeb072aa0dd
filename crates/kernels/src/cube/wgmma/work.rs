//! What the groups share that work on visits: their rows, and which pairs attend.

use cubecl::prelude::*;

use super::instructions::set_registers;
use super::products::let_registers_change;
use super::ring::{Ring, Turn, all_of, has_ranges, may_be_ranges, nothing_of};
use super::size::registers;
use crate::cube::mma::fragments::Pair;
use crate::cube::mma::mask::{attended, attended_in_a_row, keep_attended};
use crate::cube::mma::products::Products;
use crate::cube::tile::Tile;
use crate::cube::walk::NONE;

/// The barrier of the units that work on visits.
pub(super) const WORKING: usize = 2;

/// Takes registers for the units that work on visits, with `sums` sums each, from those that fill the ring: `more` for the former,
/// fewer for the latter. The widest of the kernel's products has `columns` columns.
#[cube]
pub(super) fn share_registers(
    #[comptime] more: bool,
    #[comptime] rows: usize,
    #[comptime] sums: usize,
    #[comptime] columns: usize,
) {
    if comptime!(registers(rows, sums).is_some()) {
        let (fillers, workers) = comptime!(registers(rows, sums).unwrap_or_default());
        set_registers(comptime!(if more { workers } else { fillers }), more);
        if comptime!(more) {
            let_registers_change(columns);
        }
    }
}

/// The first of the two rows of a unit. The other is the eighth after it.
#[cube]
pub(super) fn first_row(unit: usize) -> usize {
    unit / 32usize * 16usize + unit % 32usize / 4usize
}

/// The tokens of this unit's rows: of `tokens`, those before `end`.
#[cube]
pub(super) fn own_tokens_of(tokens: &Shared<[i32]>, first_row: usize, end: i32) -> Array<i32> {
    let mut own = Array::<i32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let token = tokens[first_row + comptime!(8 * half)];
        own[half] = select(token < end, token, NONE);
    }
    own
}

/// Puts `other` in the place of the pairs of a visit that do not attend, of queries with these `tokens`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn mask(
    sums: &mut Array<Pair<f32>>,
    ring: &Ring,
    turn: &Turn,
    bits: u32,
    group: u32,
    index: &[i32],
    head_record: usize,
    tokens: &Array<i32>,
    visited_tokens: &Shared<[i32]>,
    other: f32,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    if !all_of(bits, group) {
        let tiles = comptime!(visited.rows / 8);
        let of_pairs = attending_pairs(
            ring,
            turn,
            bits,
            group,
            index,
            head_record,
            tokens,
            visited_tokens,
            true,
            tile,
            visited,
        );
        keep_attended(sums, &of_pairs, other, tiles, 1usize);
    }
}

/// The bits of the pairs that attend, of a visit that has these `bits` and of which the group does not attend all. `queries` says whether the owned rows, of
/// `tokens`, are queries.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn attending_pairs(
    ring: &Ring,
    turn: &Turn,
    bits: u32,
    group: u32,
    index: &[i32],
    head_record: usize,
    tokens: &Array<i32>,
    visited_tokens: &Shared<[i32]>,
    #[comptime] queries: bool,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> Array<u32> {
    let mut of_pairs = Array::<u32>::new(1usize);
    of_pairs[0usize] = 0u32.runtime();
    if !nothing_of(bits, group) {
        let distances = ring.distances(turn, bits);
        if comptime!(may_be_ranges(visited)).runtime() && has_ranges(bits) {
            let first = ring.first_token(turn);
            let of_ranges =
                attended_in_a_row(&distances, tokens, first, visited.rows, queries, tile);
            of_pairs[0usize] = of_ranges[0usize];
        } else {
            let of_tokens = attended(
                &distances,
                index,
                head_record,
                tokens,
                visited_tokens,
                turn.slot as usize * comptime!(visited.rows),
                comptime!(visited.rows / 8),
                1usize,
                queries,
                tile,
                Products::Mma,
            );
            of_pairs[0usize] = of_tokens[0usize];
        }
    }
    of_pairs
}
