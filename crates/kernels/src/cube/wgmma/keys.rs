//! How the ring is filled for the kernels that own queries: with the keys and values that they visit.

use cubecl::prelude::*;

use super::groups::queries_attending;
use super::instructions::sync_units;
use super::ring::{Ring, Turn, are_ranges};
use super::size::FILLERS;
use super::tiles::Tiles;
use crate::cube::mma::queries::{KeyCursor, key_cursor};
use crate::cube::rows::HeadRows;
use crate::cube::tile::Tile;
use crate::cube::walk::{QueryTile, Reach, query_reach};

/// The barrier of the units that fill the ring.
pub(super) const FILLING: usize = 1;

/// What is in the slot of a visit, as far as its keys say.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Filled {
    /// Whether there is a visit.
    pub(super) any: bool,
    /// Whether its tokens follow one another, from `first_token` on; else they are written, from `first` on.
    whole: bool,
    first_token: i32,
    first: usize,
    /// What the groups attend of it.
    pub(super) attending: u32,
}

/// Goes on to the next visit of a query tile and fills the slot of `turn` with its keys, and their tokens. After the last visit the slot
/// says that none is left.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn fill_with_keys<E: Float, N: Size>(
    ring: &mut Ring,
    cursor: &mut KeyCursor,
    own: &QueryTile,
    index: &[i32],
    queries: &Reach,
    k: &Tensor<Vector<E, N>>,
    k_rows: &HeadRows,
    keys: &Tiles<E, N>,
    tokens: &mut Shared<[i32]>,
    turn: &Turn,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> Filled {
    let (end, unit) = (own.span.kv_end, UNIT_POS as usize);
    cursor.advance(index, &own.walk, &own.span, tile, visited);
    let visit = cursor.describe(own, index, queries, tile, visited);
    let reach = cursor.reach(own, index, visited);
    // Lists of tables and of diagonals, which the blocks of a tile share, hold blocks that none of them attends.
    let whole = comptime!(!visited.table).runtime()
        && reach.in_a_row(visited.rows)
        && visit.distances.stride == 1;
    let ranges = are_ranges(&visit.distances, &reach, visited);
    let first = turn.slot as usize * comptime!(visited.rows);
    ring.wait_until_free(turn);
    let attending = queries_attending(&visit, own, &reach, tile);
    ring.describe(turn, &visit, &reach, attending, unit, visited);
    let any = visit.any;
    // Masks of ranges ask for no token, nor do copies of what is in a row.
    if any && !(whole && (visit.all || ranges)) {
        if comptime!(ring.parts > 1) {
            // The slot's keys are free, but others may still copy its last values, by its tokens.
            sync_units(FILLING, FILLERS);
        }
        if UNIT_POS < comptime!(visited.rows as u32) {
            tokens[first + unit] = cursor.token(own, index, UNIT_POS, visited);
        }
    }
    let filled = Filled {
        any,
        whole,
        first_token: reach.first_token,
        first,
        attending,
    };
    if whole {
        keys.copy_whole(turn.slot, k, k_rows, reach.first_token, unit, FILLERS);
    } else if any {
        sync_units(FILLING, FILLERS);
        keys.copy(turn.slot, k, k_rows, &*tokens, first, end, unit, FILLERS);
    }
    filled
}

/// Fills the ring with the rows of keys and values that a query tile visits, and their tokens, one slot after another from that
/// of `turn` on. The slot after the last visit says that none is left; the turn after it comes back.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn fill<E: Float, N: Size>(
    ring: &mut Ring,
    own: &QueryTile,
    index: &[i32],
    k: &Tensor<Vector<E, N>>,
    k_rows: &HeadRows,
    keys: &Tiles<E, N>,
    v: &Tensor<Vector<E, N>>,
    v_rows: &HeadRows,
    values: &Tiles<E, N>,
    tokens: &mut Shared<[i32]>,
    turn: Turn,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> Turn {
    let (end, unit) = (own.span.kv_end, UNIT_POS as usize);
    let queries = query_reach(own, tile);
    let mut cursor = key_cursor();
    let mut turn = turn;
    let mut more = true;
    while more {
        let filled = fill_with_keys::<E, N>(
            ring,
            &mut cursor,
            own,
            index,
            &queries,
            k,
            k_rows,
            keys,
            tokens,
            &turn,
            tile,
            visited,
        );
        more = filled.any;
        ring.fill_keys(&turn);
        if filled.whole {
            values.copy_whole(turn.slot, v, v_rows, filled.first_token, unit, FILLERS);
        } else if more {
            values.copy(
                turn.slot,
                v,
                v_rows,
                &*tokens,
                filled.first,
                end,
                unit,
                FILLERS,
            );
        }
        ring.fill(&turn);
        turn = turn.next(ring.slots);
    }
    turn
}
