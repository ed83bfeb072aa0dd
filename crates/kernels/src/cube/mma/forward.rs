//! Forward: a cube owns a tile of queries and visits the keys of their blocks with an online softmax.

use cubecl::prelude::*;

use super::fragments::{accumulate, row_max, row_sum, scores, zeros};
use super::intrinsics::exp2;
use super::mask::{attended, bit, own_rows};
use super::queries::{key_cursor, own_tokens};
use super::size::units;
use super::stage::{LANES, chunks, stage};
use crate::cube::config::Config;
use crate::cube::rows::head_rows;
use crate::cube::walk::{NONE, all_attend, query_reach, query_tile, rows_reach};

/// Where a row's maximum starts.
const LOWEST: f32 = f32::MIN;
/// A scale of 0, where `-inf` is still what does not attend: no score of 2-byte numbers sees the difference.
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
    batch: u32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile, visited, units) =
        comptime!((config.owned, config.visited, units(config.owned.rows)));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (tiles, value_tiles) = comptime!((visited.rows / 8, chunks(value_dim)));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = max(scale.abs() * log2_e, f32::new(LEAST_SCALE));

    let own = query_tile(index, batch, heads, kv_heads, seq_q, tile);
    let span = own.span;
    let q_rows = head_rows::<E, N>(q, own.sequence, own.head, span.q_start, LANES);
    let k_rows = head_rows::<E, N>(k, own.sequence, own.kv_head, span.kv_start, LANES);
    let v_rows = head_rows::<E, N>(v, own.sequence, own.kv_head, span.kv_start, LANES);
    let queries_reach = query_reach(&own, tile);

    let mut owned = stage::<E, N>(tile.rows, comptime!(head_dim.max(value_dim)), units);
    let mut keys = stage::<E, N>(visited.rows, head_dim, units);
    let mut values = stage::<E, N>(visited.rows, value_dim, units);
    // Two slots: those of this visit and those of the next.
    let mut tokens = Shared::<[i32]>::new_slice(comptime!(2 * visited.rows));
    let own_tokens = own_tokens(&own, index, tile, units);
    let mut slot = 0usize.runtime();
    let mut cursor = key_cursor();
    cursor.settle(index, &own.walk, &span, tile, visited);
    cursor.visit(&mut tokens, slot, index, &own.walk, &span, visited);
    sync_cube();
    owned.put(&owned.fetch(q, &q_rows, &own_tokens, 0usize, span.q_end, head_dim));
    keys.put(&keys.fetch(k, &k_rows, &tokens, slot, span.kv_end, head_dim));
    sync_cube();

    let queries = own_rows(&own_tokens, span.q_end);
    let mut maxima = Array::<f32>::new(2usize);
    let mut sums = Array::<f32>::new(2usize);
    // Of the weights as the product sees them: divided by these, its sums are an average, never beyond the values.
    let mut rounded_sums = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        maxima[half] = f32::new(LOWEST);
        sums[half] = f32::new(0.0);
        rounded_sums[half] = f32::new(0.0);
    }
    let mut results = zeros(value_tiles);
    while cursor.any(&own.walk) {
        let next_values = values.fetch(v, &v_rows, &tokens, slot, span.kv_end, value_dim);
        let mut weights = scores::<E, N>(&owned, &keys, 0usize, tiles, head_dim);
        values.put(&next_values);
        sync_cube();

        if scale < 0.0f32 {
            #[unroll]
            for n in 0..comptime!(2 * tiles) {
                weights[n] *= Vector::new(-1.0f32);
            }
        }
        let distances = cursor.distances();
        let keys_reach = rows_reach(index, &cursor.rows(&span, visited), visited);
        let one_block = queries_reach.first_block == queries_reach.last_block;
        let all = all_attend(&distances, &queries_reach, &keys_reach, one_block, tile);
        if !(keys_reach.complete && all) {
            let bits = attended(
                &distances,
                index,
                own.walk.record,
                &queries,
                &tokens,
                slot,
                tiles,
                true,
                tile,
            );
            #[unroll]
            for n in 0..comptime!(2 * tiles) {
                let mut pair = weights[n];
                #[unroll]
                for e in 0..2usize {
                    pair.insert(e, select(bit(bits, n, e), pair.extract(e), minus_infinity));
                }
                weights[n] = pair;
            }
        }

        // The next keys are on their way while the weights are computed and used.
        cursor.advance(index, &own.walk, &span, tile, visited);
        slot = comptime!(visited.rows) - slot;
        cursor.visit(&mut tokens, slot, index, &own.walk, &span, visited);
        sync_cube();
        let next_keys = keys.fetch(k, &k_rows, &tokens, slot, span.kv_end, head_dim);
        #[unroll]
        for half in 0..2usize {
            let mut top = minus_infinity;
            #[unroll]
            for n in 0..tiles {
                let pair = weights[comptime!(2 * n + half)];
                top = max(top, max(pair.extract(0usize), pair.extract(1usize)));
            }
            let top = max(maxima[half], row_max(top));
            let kept = exp2((maxima[half] - top) * factor, config.approximate_exp2);
            maxima[half] = top;
            let mut sum = sums[half] * kept;
            let mut rounded_sum = rounded_sums[half] * kept;
            #[unroll]
            for n in 0..tiles {
                let mut pair = weights[comptime!(2 * n + half)];
                #[unroll]
                for e in 0..2usize {
                    // The difference first: of huge scores, products keep no digit after the point.
                    let weight = exp2((pair.extract(e) - top) * factor, config.approximate_exp2);
                    sum += weight;
                    pair.insert(e, weight);
                }
                if comptime!(!config.rounding) {
                    let rounded = Vector::<E, Const<2>>::cast_from(pair);
                    let rounded = Vector::<f32, Const<2>>::cast_from(rounded);
                    rounded_sum += rounded.extract(0usize) + rounded.extract(1usize);
                }
                weights[comptime!(2 * n + half)] = pair;
            }
            sums[half] = sum;
            rounded_sums[half] = rounded_sum;
            #[unroll]
            for n in 0..value_tiles {
                results[comptime!(2 * n + half)] *= Vector::new(kept);
            }
        }
        accumulate::<E, N>(&mut results, &weights, &values, 0usize, tiles, value_dim);
        if comptime!(config.rounding) {
            // What rounding took from the weights: `D = rowsum(dO * O)` moves a whole row of dS, and is to be as exact as
            // dS itself.
            #[unroll]
            for n in 0..comptime!(2 * tiles) {
                let rounded = Vector::<E, Const<2>>::cast_from(weights[n]);
                weights[n] -= Vector::cast_from(rounded);
            }
            accumulate::<E, N>(&mut results, &weights, &values, 0usize, tiles, value_dim);
        }
        keys.put(&next_keys);
        sync_cube();
    }

    let tokens = own_rows(&own_tokens, own.rows.end);
    #[unroll]
    for half in 0..2usize {
        let sum = row_sum(sums[half]);
        // Scores that are not a number leave the maximum alone, but not the sum.
        let empty = sum == 0.0f32 || queries[half] == NONE;
        let mut whole = sum;
        if comptime!(!config.rounding) {
            whole = row_sum(rounded_sums[half]);
        }
        let part = select(empty, f32::new(0.0), f32::new(1.0) / whole);
        #[unroll]
        for n in 0..value_tiles {
            // Values that others of the tile attend may be infinite, and 0 times that is not 0.
            let mut pair = results[comptime!(2 * n + half)] * Vector::new(part);
            #[unroll]
            for e in 0..2usize {
                pair.insert(e, select(empty, f32::new(0.0), pair.extract(e)));
            }
            results[comptime!(2 * n + half)] = pair;
        }
        if tokens[half] != NONE && UNIT_POS % 4u32 == 0u32 {
            let row = (own.sequence * heads as usize + own.head) * seq_q as usize
                + usize::cast_from(tokens[half] - span.q_start);
            lse[row] = select(
                empty,
                minus_infinity,
                maxima[half] * factor / log2_e + sum.ln(),
            );
        }
    }
    let out_rows = head_rows::<E, N>(&*out, own.sequence, own.head, span.q_start, LANES);
    owned.put_sums(&results, value_tiles);
    sync_cube();
    owned.store(out, &out_rows, &own_tokens, value_dim);
    if comptime!(config.rounding) {
        #[unroll]
        for n in 0..comptime!(2 * value_tiles) {
            let rounded = Vector::<E, Const<2>>::cast_from(results[n]);
            results[n] -= Vector::cast_from(rounded);
        }
        sync_cube();
        owned.put_sums(&results, value_tiles);
        sync_cube();
        let rows = head_rows::<E, N>(&*rounding, own.sequence, own.head, span.q_start, LANES);
        owned.store(rounding, &rows, &own_tokens, value_dim);
    }
}
