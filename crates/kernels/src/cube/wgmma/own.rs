//! The tiles that a cube owns one after another, of which the next is on its way while it works on one.

use cubecl::prelude::*;

use super::instructions::sync_units;
use super::keys::FILLING;
use super::ring::{Ring, Turn, ring};
use super::size::FILLERS;
use super::tiles::Tiles;
use crate::cube::rows::HeadRows;
use crate::cube::tile::Tile;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, QueryTile, rows_reach};

/// Words that say what a tile is.
pub(super) const OWN: usize = 7;

/// What the units that work on a tile of queries need to know of it.
#[derive(CubeType, Clone, Copy)]
pub(super) struct OwnTile {
    pub(super) item: usize,
    pub(super) head: usize,
    /// The position that row 0 would have.
    pub(super) zero: i32,
    /// End of the tokens.
    pub(super) end: i32,
    /// End of the rows, which are padding from `end` on.
    pub(super) rows_end: i32,
    /// Place of the head's row record in the index.
    pub(super) record: usize,
    /// The first token, where a row has each that follows; [`NONE`] where they do not.
    pub(super) first_token: i32,
}

/// The ring of the tiles of cubes that own `rows` rows, of which they have `slots`.
#[cube]
pub(super) fn own_ring(#[comptime] slots: usize, #[comptime] rows: usize) -> Ring {
    ring(slots, 1usize, OWN, rows, FILLERS)
}

/// Fills a slot with the rows of a tile of queries, and their tokens.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn fill_own<E: Float, N: Size>(
    ring: &mut Ring,
    turn: &Turn,
    own: &QueryTile,
    index: &[i32],
    q: &VectorTensor<E, N>,
    q_rows: &HeadRows,
    queries: &Tiles<E, N>,
    tokens: &mut Shared<[i32]>,
    #[comptime] tile: Tile,
) {
    let unit = UNIT_POS as usize;
    let first = turn.slot as usize * comptime!(tile.rows);
    ring.wait_until_free(turn);
    if UNIT_POS == 0u32 {
        ring.put(turn, 0usize, own.span.item as i32);
        ring.put(turn, 1usize, own.head as i32);
        ring.put(turn, 2usize, own.span.q_zero);
        ring.put(turn, 3usize, own.span.q_end);
        ring.put(turn, 4usize, own.rows.end);
        ring.put(turn, 5usize, own.walk.record as i32);
        let reach = rows_reach(index, &own.rows, comptime!(tile.in_order()));
        let whole = reach.in_a_row(tile.rows);
        ring.put(turn, 6usize, select(whole, reach.first_token, NONE));
    }
    #[unroll]
    for n in 0..comptime!(tile.rows.div_ceil(FILLERS)) {
        let row = UNIT_POS + comptime!((n * FILLERS) as u32);
        if row < comptime!(tile.rows as u32) {
            tokens[first + row as usize] = own.rows.token(index, row, comptime!(tile.in_order()));
        }
    }
    sync_units(FILLING, FILLERS);
    let end = own.span.q_end;
    queries.copy(turn.slot, q, q_rows, &*tokens, first, end, unit, FILLERS);
    ring.fill(turn);
}

/// What is in a full slot.
#[cube]
pub(super) fn own_tile(ring: &Ring, turn: &Turn) -> OwnTile {
    OwnTile {
        item: usize::cast_from(ring.word(turn, 0usize)),
        head: usize::cast_from(ring.word(turn, 1usize)),
        zero: ring.word(turn, 2usize),
        end: ring.word(turn, 3usize),
        rows_end: ring.word(turn, 4usize),
        record: usize::cast_from(ring.word(turn, 5usize)),
        first_token: ring.word(turn, 6usize),
    }
}

/// The tile that this cube has in a round. Rounds go to and fro among cubes, since each tile is at most as heavy as the one before.
#[cube]
pub(super) fn tile_of_round(round: u32) -> u32 {
    let (cube, cubes) = (CUBE_POS as u32, CUBE_COUNT as u32);
    let forth = round & 1u32 == 0u32;
    select(
        forth,
        round * cubes + cube,
        (round + 1u32) * cubes - (cube + 1u32),
    )
}
