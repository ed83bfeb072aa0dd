//! Forward: a cube owns a tile of queries and visits the keys of their blocks with an online softmax.

use cubecl::prelude::*;

use super::instructions::{sync_group, writes_done};
use super::keys::fill;
use super::own::{fill_own, own_ring, own_tile, tile_of_round};
use super::products::{GROUP, clear, declare, products_done, take};
use super::ring::{VISIT, first_turn, is_visit, ring};
use super::size::{FILLERS, ROWS, own_slots, parts, weights_have_names};
use super::softmax::{softmax, unchanged};
use super::tiles::{moves_whole, tiles};
use super::visits::{
    RESULTS, SCORES, begin_visit, bits_after, early_bits, holds, scale_raised, visit,
    visited_by_group, weigh,
};
use super::weights::weights;
use super::work::{WORKING, first_row, own_tokens_of, share_registers};
use crate::cube::config::Config;
use crate::cube::mma::stage::{chunks, padded};
use crate::cube::rows::{head_keys, head_queries, head_rows};
use crate::cube::softmax::LEAST_SCALE;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, query_tile};

/// `out` and `lse` of every query, and what `out` loses by rounding where `config.rounding`: of `tiles_of_all` tiles, which the cubes
/// of a grid of any size take by turns.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn forward<E: Float, N: Size>(
    q: &VectorTensor<E, N>,
    k: &VectorTensor<E, N>,
    v: &VectorTensor<E, N>,
    out: &mut VectorTensor<E, N>,
    rounding: &mut VectorTensor<E, N>,
    lse: &mut [f32],
    index: &[i32],
    scale: f32,
    minus_infinity: f32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    tiles_of_all: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile, visited) = comptime!((config.owned, config.visited));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let widest = comptime!(head_dim.max(value_dim));
    let own_slots = comptime!(own_slots([head_dim, value_dim]));
    let parts = comptime!(parts([head_dim, value_dim]));
    let sums = comptime!(value_dim / 2);
    let widest_product = comptime!(padded(value_dim));
    let (columns, value_tiles, brain) =
        comptime!((visited.rows / 8, chunks(value_dim), config.brain));

    // Queries of this tile, whose results go there, and where there is memory those of the next.
    let mut owned = tiles::<E, N>(own_slots, tile.rows, head_dim, widest);
    let keys = tiles::<E, N>(config.slots, visited.rows, head_dim, head_dim);
    let values = tiles::<E, N>(config.slots, visited.rows, value_dim, value_dim);
    let mut tokens = Shared::<[i32]>::new_slice(comptime!(config.slots * visited.rows));
    let mut own_tokens = Shared::<[i32]>::new_slice(comptime!(own_slots * tile.rows));
    let mut ring = ring(config.slots, parts, VISIT, tile.rows, FILLERS);
    let mut own_ring = own_ring(own_slots, tile.rows);
    let mut turn = first_turn();
    let mut own_turn = first_turn();
    let mut round = 0u32.runtime();
    let mut number = tile_of_round(round);
    sync_cube();
    if UNIT_POS < comptime!(FILLERS as u32) {
        share_registers(false, tile.rows, sums, widest_product);
        while number < tiles_of_all {
            let own = query_tile(index, number, heads, kv_heads, tile);
            let span = own.span;
            let q_rows = head_queries::<E, N>(q, &span, own.head);
            fill_own::<E, N>(
                &mut own_ring,
                &own_turn,
                &own,
                index,
                q,
                &q_rows,
                &owned,
                &mut own_tokens,
                tile,
            );
            let k_rows = head_keys::<E, N>(k, &span, own.kv_head);
            let v_rows = head_keys::<E, N>(v, &span, own.kv_head);
            turn = fill::<E, N>(
                &mut ring,
                &own,
                index,
                k,
                &k_rows,
                &keys,
                v,
                &v_rows,
                &values,
                &mut tokens,
                turn,
                tile,
                visited,
            );
            own_turn = own_turn.next(own_slots);
            round += 1u32;
            number = tile_of_round(round);
        }
    } else {
        share_registers(true, tile.rows, sums, widest_product);
        let unit = (UNIT_POS - comptime!(FILLERS as u32)) as usize;
        let in_group = unit % GROUP;
        // The same for all units of a plane, which the compiler does not see otherwise.
        let group = plane_broadcast((unit / GROUP) as u32, 0u32);
        let group_rows = group * comptime!(ROWS as u32);
        let barrier = group + comptime!(WORKING as u32);
        let first_row = first_row(unit);
        let log2_e = f32::new(core::f32::consts::LOG2_E);
        let names = comptime!(weights_have_names(tile.rows, value_dim, config.rounding));
        let mut even = weights::<E>(columns, config.rounding, comptime!(names.then_some("e")));
        let mut odd = weights::<E>(columns, config.rounding, comptime!(names.then_some("f")));
        declare(SCORES, visited.rows);
        declare(RESULTS, comptime!(padded(value_dim)));
        while number < tiles_of_all {
            // The same for all units of a plane.
            turn = turn.of_plane();
            own_turn = own_turn.of_plane();
            own_ring.wait(&own_turn);
            let of = own_tile(&own_ring, &own_turn);
            let slot = own_turn.slot;
            let tokens_at = slot as usize * comptime!(tile.rows);
            if scale < 0.0f32 {
                owned.negate(slot, group_rows as usize, in_group, GROUP, ROWS);
                writes_done();
                sync_group(barrier, GROUP);
            }
            let mut held = Array::<Vector<u32, Const<4>>>::new(comptime!(padded(head_dim) / 16));
            if comptime!(holds(config)) {
                let of_plane = unit / 32usize * 16usize;
                held = owned.held(slot, of_plane);
            }
            let queries = own_tokens_of(&own_tokens, tokens_at + first_row, of.end);
            let mut softmax = softmax(max(scale.abs() * log2_e, f32::new(LEAST_SCALE)));
            clear(RESULTS, comptime!(padded(value_dim)));
            let mut bits = ring.wait_for_bits(&turn);
            if is_visit(bits) {
                begin_visit::<E, N>(&owned, slot, group, &held, &keys, &turn, config);
                let next_bits = early_bits(&ring, &turn, config);
                products_done(0usize);
                let mut raised = unchanged();
                weigh::<E>(
                    &mut even,
                    &mut raised,
                    &mut softmax,
                    &ring,
                    &turn,
                    bits,
                    group,
                    index,
                    of.record,
                    &queries,
                    &tokens,
                    minus_infinity,
                    tile,
                    visited,
                );
                ring.done_with_keys(&turn);
                let mut before = turn;
                turn = before.next(ring.slots);
                bits = bits_after(&ring, &turn, next_bits, config);
                while is_visit(bits) {
                    if comptime!(names) {
                        // Two visits a turn, so that weights need not move. What few visits take stands behind the loop, so that
                        // its instructions follow one another.
                        let mut weighed = true.runtime();
                        let mut next_bits = 0u32.runtime();
                        while weighed && is_visit(bits) {
                            let (is_weighed, next) = visit::<E, N>(
                                &even,
                                &mut odd,
                                &mut softmax,
                                &before,
                                &turn,
                                bits,
                                &ring,
                                group,
                                &owned,
                                slot,
                                &held,
                                &keys,
                                &values,
                                config,
                            );
                            weighed = is_weighed;
                            next_bits = next;
                            if weighed {
                                visited_by_group(&ring, &before, &turn);
                                before = turn;
                                turn = before.next(ring.slots);
                                bits = bits_after(&ring, &turn, next_bits, config);
                                if is_visit(bits) {
                                    let (is_weighed, next) = visit::<E, N>(
                                        &odd,
                                        &mut even,
                                        &mut softmax,
                                        &before,
                                        &turn,
                                        bits,
                                        &ring,
                                        group,
                                        &owned,
                                        slot,
                                        &held,
                                        &keys,
                                        &values,
                                        config,
                                    );
                                    weighed = is_weighed;
                                    next_bits = next;
                                    if weighed {
                                        visited_by_group(&ring, &before, &turn);
                                        before = turn;
                                        turn = before.next(ring.slots);
                                        bits = bits_after(&ring, &turn, next_bits, config);
                                    }
                                } else {
                                    even.set(&odd);
                                }
                            }
                        }
                        if !weighed {
                            products_done(0usize);
                            let mut raised = unchanged();
                            weigh::<E>(
                                &mut even,
                                &mut raised,
                                &mut softmax,
                                &ring,
                                &turn,
                                bits,
                                group,
                                index,
                                of.record,
                                &queries,
                                &tokens,
                                minus_infinity,
                                tile,
                                visited,
                            );
                            scale_raised(&raised, value_dim);
                            visited_by_group(&ring, &before, &turn);
                            before = turn;
                            turn = before.next(ring.slots);
                            bits = bits_after(&ring, &turn, next_bits, config);
                        }
                    } else {
                        let mut raised = unchanged();
                        let (weighed, next_bits) = visit::<E, N>(
                            &even,
                            &mut odd,
                            &mut softmax,
                            &before,
                            &turn,
                            bits,
                            &ring,
                            group,
                            &owned,
                            slot,
                            &held,
                            &keys,
                            &values,
                            config,
                        );
                        if !weighed {
                            weigh::<E>(
                                &mut odd,
                                &mut raised,
                                &mut softmax,
                                &ring,
                                &turn,
                                bits,
                                group,
                                index,
                                of.record,
                                &queries,
                                &tokens,
                                minus_infinity,
                                tile,
                                visited,
                            );
                        }
                        visited_by_group(&ring, &before, &turn);
                        scale_raised(&raised, value_dim);
                        before = turn;
                        turn = before.next(ring.slots);
                        bits = bits_after(&ring, &turn, next_bits, config);
                        even.set(&odd);
                    }
                }
                ring.wait_for_values(&before);
                even.begin::<N>(RESULTS, &values, before.slot, brain);
                products_done(0usize);
                ring.done(&before);
            }
            // The slot that said that no visit is left.
            ring.done_with_keys(&turn);
            ring.wait_for_values(&turn);
            ring.done(&turn);
            turn = turn.next(ring.slots);

            let mut results = take(RESULTS, comptime!(padded(value_dim)));
            #[unroll]
            for half in 0..2usize {
                let empty = queries[half] == NONE;
                let of_row = softmax.finish(&mut results, half, empty, minus_infinity, value_tiles);
                let token = own_tokens[tokens_at + first_row + comptime!(8 * half)];
                if token < of.rows_end && token != NONE && UNIT_POS % 4u32 == 0u32 {
                    let row = (of.item * heads as usize + of.head) * seq_q as usize
                        + usize::cast_from(token - of.zero);
                    lse[row] = of_row;
                }
            }
            // All of the group have read what is owned, and it is written next.
            sync_group(barrier, GROUP);
            owned.put_sums(slot, &results, first_row, value_tiles);
            sync_group(barrier, GROUP);
            let out_rows = head_rows::<E, N>(&*out, of.item, of.head, of.zero);
            if comptime!(moves_whole(ROWS, value_dim, GROUP)).runtime() && of.first_token != NONE {
                owned.store_whole(
                    slot,
                    out,
                    &out_rows,
                    of.first_token + group_rows as i32,
                    group_rows as usize,
                    in_group,
                    GROUP,
                    ROWS,
                    value_dim,
                );
            } else {
                owned.store(
                    slot,
                    out,
                    &out_rows,
                    &own_tokens,
                    tokens_at,
                    group_rows as usize,
                    in_group,
                    GROUP,
                    ROWS,
                    value_dim,
                );
            }
            if comptime!(config.rounding) {
                #[unroll]
                for n in 0..comptime!(2 * value_tiles) {
                    let rounded = Vector::<E, Const<2>>::cast_from(results[n]);
                    results[n] -= Vector::cast_from(rounded);
                }
                sync_group(barrier, GROUP);
                owned.put_sums(slot, &results, first_row, value_tiles);
                sync_group(barrier, GROUP);
                let rows = head_rows::<E, N>(&*rounding, of.item, of.head, of.zero);
                owned.store(
                    slot,
                    rounding,
                    &rows,
                    &own_tokens,
                    tokens_at,
                    group_rows as usize,
                    in_group,
                    GROUP,
                    ROWS,
                    value_dim,
                );
            }
            own_ring.done(&own_turn);
            own_turn = own_turn.next(own_slots);
            round += 1u32;
            number = tile_of_round(round);
        }
    }
}
