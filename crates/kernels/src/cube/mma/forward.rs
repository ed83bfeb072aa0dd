//! Forward: a cube owns a tile of queries and visits the keys of their blocks with an online softmax.

use cubecl::prelude::*;

use super::fragments::{accumulate, add_row_sums, row_max, row_sum, scores, zeros};
use super::intrinsics::exp2;
use super::mask::{all_bits, attended, bit, own_rows};
use super::queries::{own_tokens, visited_keys};
use super::size::units;
use super::stage::{LANES, arrive, chunks, stage};
use crate::cube::config::Config;
use crate::cube::rows::head_rows;
use crate::cube::walk::{NONE, query_tile};

/// Where a row's maximum starts.
const LOWEST: f32 = f32::MIN;
/// How far, in powers of 2, a maximum may be behind.
const LAZY: f32 = 8.0;
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
    batch: u32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile, visited, units) = comptime!((
        config.owned,
        config.visited,
        units(config.owned.rows, config.parts)
    ));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (parts, fast) = comptime!((config.parts, config.instructions));
    let (tiles, value_tiles) = comptime!((visited.rows / 8, chunks(value_dim)));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = max(scale.abs() * log2_e, f32::new(LEAST_SCALE));

    let own = query_tile(index, batch, heads, kv_heads, seq_q, tile);
    let span = own.span;
    let q_rows = head_rows::<E, N>(q, own.sequence, own.head, span.q_start, LANES);
    let k_rows = head_rows::<E, N>(k, own.sequence, own.kv_head, span.kv_start, LANES);
    let v_rows = head_rows::<E, N>(v, own.sequence, own.kv_head, span.kv_start, LANES);

    let mut owned = stage::<E, N>(tile.rows, comptime!(head_dim.max(value_dim)), units, fast);
    // Two slots: those of this visit and those of the next.
    let mut keys = stage::<E, N>(comptime!(2 * visited.rows), head_dim, units, fast);
    let mut values = stage::<E, N>(comptime!(2 * visited.rows), value_dim, units, fast);
    let own_tokens = own_tokens(&own, index, tile, units);
    let mut visits = visited_keys(&own, index, tile, visited);
    sync_cube();
    let (rows, end) = (comptime!(visited.rows), span.kv_end);
    owned.fill(q, &q_rows, &own_tokens, span.q_end, tile.rows, head_dim);
    keys.fill(k, &k_rows, &visits.tokens, end, rows, head_dim);
    values.fill(v, &v_rows, &visits.tokens, end, rows, value_dim);

    let queries = own_rows(&own_tokens, span.q_end, parts);
    let mut maxima = Array::<f32>::new(comptime!(2 * parts));
    let mut sums = Array::<f32>::new(comptime!(2 * parts));
    // Of the weights as the product sees them: divided by these, its sums are an average, never beyond the values.
    let mut rounded_sums = zeros(parts);
    #[unroll]
    for half in 0..comptime!(2 * parts) {
        maxima[half] = f32::new(LOWEST);
        sums[half] = f32::new(0.0);
    }
    let mut results = zeros(comptime!(parts * value_tiles));
    while visits.at.visit.any {
        arrive(fast);
        // The next rows are on their way while these are used, and the tokens of those after them are looked up.
        let (slot, other) = (visits.at.slot, visits.at.next_slot());
        let next = visits.at.next_tokens();
        let moved = keys.begin(k, &k_rows, &visits.tokens, next, end, other, rows, head_dim);
        visits.look_ahead(&own, index);
        let mut weights = scores::<E, N>(&owned, &keys, slot, tiles, head_dim, parts);
        keys.finish(&moved, other, rows);
        let moved = values.begin(
            v,
            &v_rows,
            &visits.tokens,
            next,
            end,
            other,
            rows,
            value_dim,
        );

        if scale < 0.0f32 {
            #[unroll]
            for n in 0..comptime!(2 * parts * tiles) {
                weights[n] *= Vector::new(-1.0f32);
            }
        }
        if !visits.at.visit.all {
            let mut bits = all_bits(parts);
            attended(
                &visits.at.visit.distances,
                index,
                own.walk.record,
                &queries,
                &visits.tokens,
                visits.at.tokens,
                tiles,
                parts,
                true,
                tile,
                &mut bits,
            );
            #[unroll]
            for n in 0..comptime!(2 * parts * tiles) {
                let mut pair = weights[n];
                #[unroll]
                for e in 0..2usize {
                    pair.insert(
                        e,
                        select(bit(&bits, n, e, tiles), pair.extract(e), minus_infinity),
                    );
                }
                weights[n] = pair;
            }
        }

        #[unroll]
        for half in 0..comptime!(2 * parts) {
            let mut top = minus_infinity;
            #[unroll]
            for n in 0..tiles {
                let pair = weights[comptime!(2 * (half / 2 * tiles + n) + half % 2)];
                top = max(top, max(pair.extract(0usize), pair.extract(1usize)));
            }
            let top = row_max(top);
            // Weights may grow to 2^8 before all that was summed is divided: most visits bring no higher maximum.
            let higher = (top - maxima[half]) * factor > f32::new(LAZY);
            if plane_any(higher) {
                let top = select(higher, top, maxima[half]);
                let kept = exp2((maxima[half] - top) * factor, fast);
                maxima[half] = top;
                sums[half] *= kept;
                rounded_sums[half] *= Vector::new(kept);
                #[unroll]
                for n in 0..value_tiles {
                    results[comptime!(2 * (half / 2 * value_tiles + n) + half % 2)] *=
                        Vector::new(kept);
                }
            }
            let top = maxima[half];
            let mut sum = sums[half];
            #[unroll]
            for n in 0..tiles {
                let mut pair = weights[comptime!(2 * (half / 2 * tiles + n) + half % 2)];
                #[unroll]
                for e in 0..2usize {
                    // The difference first: of huge scores, products keep no digit after the point.
                    let weight = exp2((pair.extract(e) - top) * factor, fast);
                    sum += weight;
                    pair.insert(e, weight);
                }
                weights[comptime!(2 * (half / 2 * tiles + n) + half % 2)] = pair;
            }
            sums[half] = sum;
        }
        if comptime!(!config.rounding) {
            add_row_sums::<E>(&mut rounded_sums, &weights, tiles, parts);
        }
        accumulate::<E, N>(
            &mut results,
            &weights,
            &values,
            slot,
            tiles,
            value_dim,
            parts,
        );
        if comptime!(config.rounding) {
            // What rounding took from the weights: `D = rowsum(dO * O)` moves a whole row of dS, and is to be as exact as
            // dS itself.
            #[unroll]
            for n in 0..comptime!(2 * parts * tiles) {
                let rounded = Vector::<E, Const<2>>::cast_from(weights[n]);
                weights[n] -= Vector::cast_from(rounded);
            }
            accumulate::<E, N>(
                &mut results,
                &weights,
                &values,
                slot,
                tiles,
                value_dim,
                parts,
            );
        }
        values.finish(&moved, other, rows);
        visits.turn(&own, index);
    }
    // What is owned has been read, and is written next.
    arrive(fast);

    let tokens = own_rows(&own_tokens, own.rows.end, parts);
    #[unroll]
    for half in 0..comptime!(2 * parts) {
        let sum = row_sum(sums[half]);
        // Scores that are not a number leave the maximum alone, but not the sum.
        let empty = sum == 0.0f32 || queries[half] == NONE;
        let mut whole = sum;
        if comptime!(!config.rounding) {
            whole = rounded_sums[half].extract(0usize);
        }
        let part = select(empty, f32::new(0.0), f32::new(1.0) / whole);
        #[unroll]
        for n in 0..value_tiles {
            // Values that others of the tile attend may be infinite, and 0 times that is not 0.
            let mut pair =
                results[comptime!(2 * (half / 2 * value_tiles + n) + half % 2)] * Vector::new(part);
            #[unroll]
            for e in 0..2usize {
                pair.insert(e, select(empty, f32::new(0.0), pair.extract(e)));
            }
            results[comptime!(2 * (half / 2 * value_tiles + n) + half % 2)] = pair;
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
    owned.put_sums(&results, value_tiles, parts);
    sync_cube();
    owned.store(out, &out_rows, &own_tokens, value_dim);
    if comptime!(config.rounding) {
        #[unroll]
        for n in 0..comptime!(2 * parts * value_tiles) {
            let rounded = Vector::<E, Const<2>>::cast_from(results[n]);
            results[n] -= Vector::cast_from(rounded);
        }
        sync_cube();
        owned.put_sums(&results, value_tiles, parts);
        sync_cube();
        let rows = head_rows::<E, N>(&*rounding, own.sequence, own.head, span.q_start, LANES);
        owned.store(rounding, &rows, &own_tokens, value_dim);
    }
}
