//! Forward: a cube owns a tile of queries and visits the keys of their blocks with an online softmax.

use cubecl::prelude::*;

use super::instructions::{copies_done, end_copies, set_registers, sync_units, writes_done};
use super::keys::fill;
use super::products::{GROUP, begin_scores, begin_values, declare, products_done, scale, take};
use super::ring::{first_turn, ring};
use super::size::{FILLERS, PRODUCERS, consumers, registers, units};
use super::softmax::softmax;
use super::tiles::{Tiles, tiles};
use super::work::{WORKING, first_row, mask, own_tokens_of};
use crate::cube::config::Config;
use crate::cube::mma::fragments::{Pair, rounded};
use crate::cube::mma::queries::own_tokens;
use crate::cube::mma::stage::{LANES, chunks, padded};
use crate::cube::rows::{head_keys, head_queries};
use crate::cube::walk::{NONE, query_tile};

/// A scale of 0, where `-inf` is still what does not attend: no score below 1e28 sees the difference.
const LEAST_SCALE: f32 = 1e-30;

/// `out` and `lse` of every query, and what `out` loses by rounding where `config.rounding`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn forward<E: Float, N: Size>(
    q: &Tensor<Vector<E, N>>,
    k: &Tensor<Vector<E, N>>,
    v: &Tensor<Vector<E, N>>,
    out: &mut Tensor<Vector<E, N>>,
    rounding: &mut Tensor<Vector<E, N>>,
    lse: &mut [f32],
    index: &[i32],
    scale: f32,
    minus_infinity: f32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile, visited) = comptime!((config.owned, config.visited));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (widest, units, working) = comptime!((
        head_dim.max(value_dim),
        units(tile.rows),
        consumers(tile.rows)
    ));
    let (fewer, more) = comptime!(registers(tile.rows, value_dim / 2));
    let (columns, value_tiles, brain) =
        comptime!((visited.rows / 8, chunks(value_dim), config.brain));
    let lost_columns = comptime!(if config.rounding { columns } else { 0 });

    let own = query_tile(index, heads, kv_heads, tile);
    let span = own.span;
    let mut owned = tiles::<E, N>(1usize, tile.rows, head_dim, widest);
    let keys = tiles::<E, N>(config.slots, visited.rows, head_dim, head_dim);
    let values = tiles::<E, N>(config.slots, visited.rows, value_dim, value_dim);
    let mut tokens = Shared::<[i32]>::new_slice(comptime!(config.slots * visited.rows));
    let mut ring = ring(config.slots, tile.rows);
    let own_tokens = own_tokens(&own, index, tile, units);
    sync_cube();
    if UNIT_POS < comptime!(PRODUCERS as u32) {
        if comptime!(tile.rows > 64) {
            set_registers(fewer, false);
        }
        let k_rows = head_keys::<E, N>(k, &span, own.kv_head, LANES);
        let v_rows = head_keys::<E, N>(v, &span, own.kv_head, LANES);
        if UNIT_POS < comptime!(FILLERS as u32) {
            fill::<E, N>(
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
                tile,
                visited,
            );
        }
    } else {
        if comptime!(tile.rows > 64) {
            set_registers(more, true);
        }
        let unit = (UNIT_POS - comptime!(PRODUCERS as u32)) as usize;
        let q_rows = head_queries::<E, N>(q, &span, own.head, LANES);
        owned.copy(
            0u32.runtime(),
            q,
            &q_rows,
            &own_tokens,
            0usize.runtime(),
            span.q_end,
            unit,
            working,
        );
        end_copies();
        copies_done(0usize);
        if scale < 0.0f32 {
            owned.negate(unit, working);
            writes_done();
        }
        sync_units(WORKING, working);

        let first_row = first_row(unit);
        let queries = own_tokens_of(&own_tokens, first_row, span.q_end);
        // The same for all units of a plane, which the compiler does not see otherwise.
        let group = plane_broadcast((unit / GROUP) as u32 * 64u32, 0u32);
        let log2_e = f32::new(core::f32::consts::LOG2_E);
        let mut softmax = softmax(max(scale.abs() * log2_e, f32::new(LEAST_SCALE)));
        declare(SCORES, visited.rows);
        declare(RESULTS, comptime!(padded(value_dim)));
        let mut turn = first_turn();
        if ring.wait_until_full(&turn) {
            begin_scores::<E, N>(SCORES, &owned, group, &keys, turn.slot, brain);
            products_done(0usize);
            let mut weights = take(SCORES, visited.rows);
            mask(
                &mut weights,
                &ring,
                &turn,
                index,
                own.walk.record,
                &queries,
                &tokens,
                minus_infinity,
                true,
                tile,
                visited,
            );
            let _ = softmax.raise(&weights, minus_infinity, columns);
            softmax.weigh(&mut weights, columns);
            let mut high = rounded::<E>(&weights, columns);
            let mut low = lost::<E>(&weights, &high, lost_columns);
            let mut before = turn;
            turn = before.next(ring.slots);
            let mut more = ring.wait_until_full(&turn);
            while more {
                // Values are weighted while the next weights are computed.
                begin_scores::<E, N>(SCORES, &owned, group, &keys, turn.slot, brain);
                add::<E, N>(&high, &low, &values, before.slot, config);
                products_done(comptime!(if config.rounding { 2usize } else { 1usize }));
                let mut weights = take(SCORES, visited.rows);
                mask(
                    &mut weights,
                    &ring,
                    &turn,
                    index,
                    own.walk.record,
                    &queries,
                    &tokens,
                    minus_infinity,
                    true,
                    tile,
                    visited,
                );
                let raised = softmax.raise(&weights, minus_infinity, columns);
                softmax.weigh(&mut weights, columns);
                products_done(0usize);
                ring.done(&before);
                let of_turn = rounded::<E>(&weights, columns);
                let lost_of_turn = lost::<E>(&weights, &of_turn, lost_columns);
                #[unroll]
                for n in 0..comptime!(2 * columns) {
                    high[n] = of_turn[n];
                }
                #[unroll]
                for n in 0..comptime!(2 * lost_columns) {
                    low[n] = lost_of_turn[n];
                }
                if raised.any {
                    #[unroll]
                    for half in 0..2usize {
                        scale_results(half, raised.kept[half], comptime!(padded(value_dim)));
                    }
                }
                before = turn;
                turn = before.next(ring.slots);
                more = ring.wait_until_full(&turn);
            }
            add::<E, N>(&high, &low, &values, before.slot, config);
            products_done(0usize);
        }

        let mut results = take(RESULTS, comptime!(padded(value_dim)));
        #[unroll]
        for half in 0..2usize {
            let empty = queries[half] == NONE;
            let of_row = softmax.finish(&mut results, half, empty, minus_infinity, value_tiles);
            let token = own_tokens[first_row + comptime!(8 * half)];
            if token < own.rows.end && token != NONE && UNIT_POS % 4u32 == 0u32 {
                let row = (span.item * heads as usize + own.head) * seq_q as usize
                    + usize::cast_from(token - span.q_zero);
                lse[row] = of_row;
            }
        }
        // All have read what is owned, and it is written next.
        sync_units(WORKING, working);
        owned.put_sums(&results, first_row, value_tiles);
        sync_units(WORKING, working);
        let out_rows = head_queries::<E, N>(&*out, &span, own.head, LANES);
        owned.store(out, &out_rows, &own_tokens, unit, working, value_dim);
        if comptime!(config.rounding) {
            #[unroll]
            for n in 0..comptime!(2 * value_tiles) {
                let rounded = Vector::<E, Const<2>>::cast_from(results[n]);
                results[n] -= Vector::cast_from(rounded);
            }
            sync_units(WORKING, working);
            owned.put_sums(&results, first_row, value_tiles);
            sync_units(WORKING, working);
            let rows = head_queries::<E, N>(&*rounding, &span, own.head, LANES);
            owned.store(rounding, &rows, &own_tokens, unit, working, value_dim);
        }
    }
}

/// Sums of scores.
const SCORES: &str = "s";
/// Sums of weighted values.
const RESULTS: &str = "o";

/// Begins to add the values of a slot: by weights, and by what they lost by rounding where `config.rounding`.
#[cube]
fn add<E: Float, N: Size>(
    high: &Array<Pair<E>>,
    low: &Array<Pair<E>>,
    values: &Tiles<E, N>,
    slot: u32,
    #[comptime] config: Config,
) {
    begin_values::<E, N>(RESULTS, high, values, slot, config.brain);
    if comptime!(config.rounding) {
        begin_values::<E, N>(RESULTS, low, values, slot, config.brain);
    }
}

/// What weights lose by rounding, rounded.
#[cube]
fn lost<E: Float>(
    weights: &Array<Pair<f32>>,
    high: &Array<Pair<E>>,
    #[comptime] tiles: usize,
) -> Array<Pair<E>> {
    let mut low = Array::<Pair<E>>::new(comptime!(2 * tiles));
    #[unroll]
    for n in 0..comptime!(2 * tiles) {
        low[n] = Vector::cast_from(weights[n] - Vector::cast_from(high[n]));
    }
    low
}

/// A parameter of the kernel is called `scale` too.
#[cube]
fn scale_results(#[comptime] half: usize, factor: f32, #[comptime] columns: usize) {
    scale(RESULTS, columns, half, factor);
}
