//! How the ring is filled for the kernels that own queries: with the keys and values that they visit.

use cubecl::prelude::*;

use super::groups::queries_attending;
use super::instructions::sync_units;
use super::ring::{Ring, Turn, asks_for_tokens, bit, is_visit, visit_bits};
use super::size::FILLERS;
use super::tiles::Tiles;
use crate::cube::mma::queries::{KeyCursor, key_cursor};
use crate::cube::rows::HeadRows;
use crate::cube::tile::Tile;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{QueryTile, Reach, query_reach};

/// The barrier of the units that fill the ring.
pub(super) const FILLING: usize = 1;

/// The rows of a visit follow one another, and are copied without a look at their tokens.
const WHOLE: u32 = 32;

/// Units of a plane.
const PLANE: i32 = 32;

/// The visits of a query tile one after another. The units of a plane describe as many at a time, one each.
#[derive(CubeType)]
pub(super) struct KeyVisits {
    /// Where this unit stands, and what it says of the visit there.
    cursor: KeyCursor,
    bits: u32,
    first_token: i32,
    /// The unit that has described the visit at hand.
    unit: u32,
}

/// The visits of `own`, whose queries reach as far as `queries`, from the first on.
#[cube]
pub(super) fn key_visits(
    own: &QueryTile,
    index: &[i32],
    queries: &Reach,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> KeyVisits {
    let mut visits = KeyVisits {
        cursor: key_cursor(),
        bits: 0u32.runtime(),
        first_token: 0i32.runtime(),
        unit: 0u32.runtime(),
    };
    let first = i32::cast_from(UNIT_POS % comptime!(PLANE as u32)) + 1;
    visits.describe_after(first, own, index, queries, tile, visited);
    visits
}

#[cube]
impl KeyVisits {
    /// Describes the visit `count` after that where this unit stands.
    fn describe_after(
        &mut self,
        count: i32,
        own: &QueryTile,
        index: &[i32],
        queries: &Reach,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        let cursor = &mut self.cursor;
        cursor.advance_by(count, index, &own.walk, &own.span, tile, visited);
        let visit = cursor.describe(own, index, queries, tile, visited);
        let reach = cursor.reach(own, index, visited);
        // Lists of tables and of diagonals, which the blocks of a tile share, hold blocks that none of them attends.
        let whole = comptime!(!visited.table).runtime()
            && reach.in_a_row(visited.rows)
            && visit.distances.stride == 1;
        let attending = queries_attending(&visit, own, &reach, tile);
        self.bits = visit_bits(&visit, &reach, attending, visited) | bit(whole, WHOLE);
        self.first_token = reach.first_token;
    }

    /// Goes on to the next visit.
    fn go_on(
        &mut self,
        own: &QueryTile,
        index: &[i32],
        queries: &Reach,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) {
        self.unit += 1u32;
        if self.unit == comptime!(PLANE as u32) {
            self.unit = 0u32.runtime();
            self.describe_after(PLANE, own, index, queries, tile, visited);
        }
    }
}

/// What is in the slot of a visit, as far as its keys say.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Filled {
    /// The bits of the visit.
    pub(super) bits: u32,
    /// Where its tokens follow one another, the first; else they are written, from `first` on.
    first_token: i32,
    first: usize,
}

#[cube]
impl Filled {
    /// [`WHOLE`], of which kernels of tables, which never set it, need no code.
    fn is_whole(&self, #[comptime] visited: Tile) -> bool {
        comptime!(!visited.table).runtime() && self.bits & WHOLE != 0u32
    }
}

/// Fills the slot of `turn` with the keys of a visit of a query tile, and their tokens, and goes on to the next. After the last visit
/// the slot says that none is left.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn fill_with_keys<E: Float, N: Size>(
    ring: &mut Ring,
    visits: &mut KeyVisits,
    own: &QueryTile,
    index: &[i32],
    queries: &Reach,
    k: &VectorTensor<E, N>,
    k_rows: &HeadRows,
    keys: &Tiles<E, N>,
    tokens: &mut Shared<[i32]>,
    turn: &Turn,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> Filled {
    let (end, unit) = (own.span.kv_end, UNIT_POS as usize);
    let filled = Filled {
        bits: plane_shuffle(visits.bits, visits.unit),
        first_token: plane_shuffle(visits.first_token, visits.unit),
        first: turn.slot as usize * comptime!(visited.rows),
    };
    let (any, whole) = (is_visit(filled.bits), filled.is_whole(visited));
    ring.wait_until_free(turn);
    if UNIT_POS == visits.unit {
        let distances = visits.cursor.distances();
        ring.describe(
            turn,
            visits.bits,
            0i32.runtime(),
            &distances,
            visits.first_token,
        );
    }
    // Copies of what is in a row ask for no token.
    if asks_for_tokens(filled.bits) || (any && !whole) {
        if comptime!(ring.parts > 1) {
            // The slot's keys are free, but others may still copy its last values, by its tokens.
            sync_units(FILLING, FILLERS);
        }
        let cursor = visits.cursor.of_unit(visits.unit);
        if UNIT_POS < comptime!(visited.rows as u32) {
            tokens[filled.first + unit] = cursor.token(own, index, UNIT_POS, visited);
        }
    }
    if whole {
        keys.copy_whole(turn.slot, k, k_rows, filled.first_token, unit, FILLERS);
    } else if any {
        sync_units(FILLING, FILLERS);
        keys.copy(
            turn.slot,
            k,
            k_rows,
            &*tokens,
            filled.first,
            end,
            unit,
            FILLERS,
        );
    }
    if any {
        visits.go_on(own, index, queries, tile, visited);
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
    k: &VectorTensor<E, N>,
    k_rows: &HeadRows,
    keys: &Tiles<E, N>,
    v: &VectorTensor<E, N>,
    v_rows: &HeadRows,
    values: &Tiles<E, N>,
    tokens: &mut Shared<[i32]>,
    turn: Turn,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> Turn {
    let (end, unit) = (own.span.kv_end, UNIT_POS as usize);
    let queries = query_reach(own, tile);
    let mut visits = key_visits(own, index, &queries, tile, visited);
    let mut turn = turn;
    let mut more = true;
    while more {
        let filled = fill_with_keys::<E, N>(
            ring,
            &mut visits,
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
        more = is_visit(filled.bits);
        ring.fill_keys(&turn);
        if filled.is_whole(visited) {
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
