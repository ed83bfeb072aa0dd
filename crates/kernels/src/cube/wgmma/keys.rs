//! How the ring is filled for the kernels that own queries: with the keys and values that they visit.

use cubecl::prelude::*;

use super::groups::queries_attending;
use super::instructions::sync_units;
use super::ring::{Ring, Turn, are_ranges};
use super::size::FILLERS;
use super::tiles::Tiles;
use crate::cube::mma::queries::key_cursor;
use crate::cube::rows::HeadRows;
use crate::cube::tile::Tile;
use crate::cube::walk::{QueryTile, query_reach};

/// The barrier of the units that fill the ring.
pub(super) const FILLING: usize = 1;

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
        cursor.advance(index, &own.walk, &own.span, tile, visited);
        let visit = cursor.describe(own, index, &queries, tile, visited);
        let reach = cursor.reach(own, index, visited);
        // Lists of tables and of diagonals, which the blocks of a tile share, hold blocks that none of them attends.
        let whole = comptime!(!visited.table).runtime()
            && reach.in_a_row(visited.rows)
            && visit.distances.stride == 1;
        let ranges = are_ranges(&visit.distances, &reach, visited);
        let first = turn.slot as usize * comptime!(visited.rows);
        ring.wait_until_free(&turn);
        let attending = queries_attending(&visit, own, &reach, tile);
        ring.describe(&turn, &visit, &reach, attending, visited);
        more = visit.any;
        // Masks of ranges ask for no token, nor do copies of what is in a row.
        if more && !(whole && (visit.all || ranges)) {
            if comptime!(ring.parts > 1) {
                // The slot's keys are free, but others may still copy its last values, by its tokens.
                sync_units(FILLING, FILLERS);
            }
            if UNIT_POS < comptime!(visited.rows as u32) {
                tokens[first + unit] = cursor.token(own, index, UNIT_POS, visited);
            }
        }
        if whole {
            keys.copy_whole(turn.slot, k, k_rows, reach.first_token, unit, FILLERS);
            ring.fill_keys(&turn);
            values.copy_whole(turn.slot, v, v_rows, reach.first_token, unit, FILLERS);
        } else if more {
            sync_units(FILLING, FILLERS);
            keys.copy(turn.slot, k, k_rows, &*tokens, first, end, unit, FILLERS);
            ring.fill_keys(&turn);
            values.copy(turn.slot, v, v_rows, &*tokens, first, end, unit, FILLERS);
        } else {
            ring.fill_keys(&turn);
        }
        ring.fill(&turn);
        turn = turn.next(ring.slots);
    }
    turn
}
