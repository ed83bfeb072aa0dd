//! How the ring is filled for the kernel that owns keys: with the queries that it visits, and the gradients of their results.

use cubecl::prelude::*;

use super::groups::{keys_attending, keys_of_groups};
use super::instructions::sync_group;
use super::kept::{Keeping, NOWHERE};
use super::ring::{Ring, first_turn, visit_bits};
use super::size::TURN_FILLERS;
use super::split::CubeWork;
use super::tiles::Tiles;
use super::visited_rows::VisitedRows;
use crate::cube::mma::keys::{Group, QueryCursor, query_cursor, visited_row};
use crate::cube::mma::visit::Visit;
use crate::cube::rows::head_queries;
use crate::cube::tile::Tile;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{KeyTile, Reach, Span, key_reach};

/// The barrier of the first set of units that fill the ring; that of the second follows.
const FILLING_BY_TURNS: u32 = 3;

/// Fills the ring with the rows of queries and gradients that a key tile visits, their tokens and stats, one slot after another,
/// by two sets of units in turn. The slot after the last visit says that none is left.
/// `first_head` is the first of the group. Where cubes share the tile, as they may where `splits`, this one's visits alone.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn fill<E: Float, N: Size>(
    ring: &mut Ring,
    own: &KeyTile,
    index: &[i32],
    group: &Group,
    span: &Span,
    first_head: usize,
    q: &VectorTensor<E, N>,
    queries: &Tiles<E, N>,
    d_out: &VectorTensor<E, N>,
    gradients: &Tiles<E, N>,
    stats: &[f32],
    rows: &mut VisitedRows,
    infinity: f32,
    keeping: &mut Keeping,
    starts: &[u32],
    work: &CubeWork,
    #[comptime] splits: bool,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    let end = span.q_end;
    // Two sets of units fill slots by turns.
    let set = plane_broadcast(UNIT_POS / comptime!(TURN_FILLERS as u32), 0u32);
    let unit = UNIT_POS as usize % TURN_FILLERS;
    let keys = key_reach(own, index, tile);
    let keys_of = keys_of_groups(own, index, tile);
    let mut cursor = query_cursor();
    let mut turn = first_turn();
    let mut more = begin_turns(
        &mut cursor,
        set,
        work,
        own,
        index,
        group,
        span,
        splits,
        tile,
        visited,
    );
    if set == 1u32 {
        turn = turn.next(ring.slots);
    }
    let first_q = head_queries::<E, N>(q, span, first_head);
    let first_d = head_queries::<E, N>(d_out, span, first_head);
    while more {
        cursor.advance(own, index, group, span, tile, visited);
        let reach = cursor.reach(index, span, visited);
        let visit = cursor.describe(group, &reach, &keys, tile);
        let (first, head) = (
            turn.slot as usize * comptime!(visited.rows),
            cursor.head(group) as usize,
        );
        // While others work on what is in the slot.
        let row = visited_row(
            &cursor.rows(span, visited),
            index,
            stats,
            group.stats + head * group.head_rows,
            group.all_rows,
            span.q_zero,
            infinity,
            unit as u32,
            visited,
        );
        let mut chunk = NOWHERE.runtime();
        if comptime!(keeping.bands > 0).runtime() && visit.any {
            chunk = keeping.chunk(
                starts,
                index,
                first_head + head,
                group.records + head,
                &cursor.rows(span, visited),
                &visit.distances,
                span,
                tile,
                visited,
            );
        }
        ring.wait_until_free(&turn);
        if comptime!(keeping.bands > 0) {
            keeping.put(ring, &turn, chunk, tile);
        }
        rows.set(turn.slot, &row, unit as u32, visited);
        sync_group(FILLING_BY_TURNS + set, TURN_FILLERS);
        let incomplete = rows.tokens.leave_out(first, visited.rows);
        let visit = Visit {
            any: visit.any,
            all: visit.all && !incomplete,
            head: visit.head,
            distances: visit.distances,
        };
        let reach = Reach {
            first_block: reach.first_block,
            last_block: reach.last_block,
            first_token: reach.first_token,
            last_token: reach.last_token,
            complete: reach.complete && !incomplete,
        };
        if unit == 0usize {
            let attending = keys_attending(&visit, &reach, &keys_of, tile);
            let bits = visit_bits(&visit, &reach, attending, visited);
            ring.describe(&turn, bits, visit.head, &visit.distances, reach.first_token);
        }
        more = visit.any;
        if more {
            let q_rows = first_q.further(head * q.head);
            let d_rows = first_d.further(head * d_out.head);
            if comptime!(visited.slots() == 1 && !visited.table) && reach.complete {
                queries.copy_whole(turn.slot, q, &q_rows, reach.first_token, unit, TURN_FILLERS);
                gradients.copy_whole(
                    turn.slot,
                    d_out,
                    &d_rows,
                    reach.first_token,
                    unit,
                    TURN_FILLERS,
                );
            } else {
                let tokens = &rows.tokens.of_rows;
                queries.copy(
                    turn.slot,
                    q,
                    &q_rows,
                    tokens,
                    first,
                    end,
                    unit,
                    TURN_FILLERS,
                );
                gradients.copy(
                    turn.slot,
                    d_out,
                    &d_rows,
                    tokens,
                    first,
                    end,
                    unit,
                    TURN_FILLERS,
                );
            }
        }
        ring.fill(&turn);
        let others = end_turn(
            &mut cursor,
            work,
            own,
            index,
            group,
            span,
            splits,
            tile,
            visited,
        );
        more = more && others;
        turn = turn.next(ring.slots).next(ring.slots);
    }
}

/// Goes before the first visit of a cube that set `set` takes, 0 or 1; whether the other has one before it.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn begin_turns(
    cursor: &mut QueryCursor,
    set: u32,
    work: &CubeWork,
    own: &KeyTile,
    index: &[i32],
    group: &Group,
    span: &Span,
    #[comptime] splits: bool,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> bool {
    let others = work.cubes - 1u32;
    let mut any = true;
    cursor.pass_over(work.first, own, index, group, span, splits, tile, visited);
    if set == 1u32 {
        cursor.advance(own, index, group, span, tile, visited);
        any = cursor.any(group);
        cursor.pass_over(others, own, index, group, span, splits, tile, visited);
    }
    any
}

/// Goes from a visit of one set before its next; whether there is one between, that of the other, which says it where there is none.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn end_turn(
    cursor: &mut QueryCursor,
    work: &CubeWork,
    own: &KeyTile,
    index: &[i32],
    group: &Group,
    span: &Span,
    #[comptime] splits: bool,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) -> bool {
    let others = work.cubes - 1u32;
    cursor.pass_over(others, own, index, group, span, splits, tile, visited);
    cursor.advance(own, index, group, span, tile, visited);
    let any = cursor.any(group);
    cursor.pass_over(others, own, index, group, span, splits, tile, visited);
    any
}
