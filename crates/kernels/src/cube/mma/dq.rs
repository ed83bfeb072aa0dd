//! dQ: a cube owns a tile of queries and visits the keys of their blocks.

use cubecl::prelude::*;

use super::fragments::{accumulate, scale_rows, scores, zeros};
use super::mask::{attended, bit, own_rows};
use super::queries::{key_cursor, own_tokens};
use super::size::units;
use super::stage::{LANES, chunks, stage};
use super::weight::weight;
use crate::cube::config::Config;
use crate::cube::rows::head_rows;
use crate::cube::stats::stats_at;
use crate::cube::walk::{NONE, all_attend, query_reach, query_tile, rows_reach};

/// Tiles of 8 keys whose gradients are held at a time.
const PART: usize = 4;

/// `dQ = scale * sum over keys of dS k`, with `dS = P * (dO v - D)`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn dq<E: Float, N: Size>(
    q: &Tensor<Vector<E, N>>,
    k: &Tensor<Vector<E, N>>,
    v: &Tensor<Vector<E, N>>,
    d_out: &Tensor<Vector<E, N>>,
    stats: &[f32],
    dq: &mut Tensor<Vector<E, N>>,
    index: &[i32],
    scale: f32,
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
    let (tiles, key_tiles) = comptime!((visited.rows / 8, chunks(head_dim)));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = scale * log2_e;

    let own = query_tile(index, batch, heads, kv_heads, seq_q, tile);
    let span = own.span;
    let q_rows = head_rows::<E, N>(q, own.sequence, own.head, span.q_start, LANES);
    let d_out_rows = head_rows::<E, N>(d_out, own.sequence, own.head, span.q_start, LANES);
    let k_rows = head_rows::<E, N>(k, own.sequence, own.kv_head, span.kv_start, LANES);
    let v_rows = head_rows::<E, N>(v, own.sequence, own.kv_head, span.kv_start, LANES);
    let queries_reach = query_reach(&own, tile);

    let mut owned = stage::<E, N>(tile.rows, head_dim, units);
    let mut gradients = stage::<E, N>(tile.rows, value_dim, units);
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
    gradients.put(&gradients.fetch(
        d_out,
        &d_out_rows,
        &own_tokens,
        0usize,
        span.q_end,
        value_dim,
    ));
    keys.put(&keys.fetch(k, &k_rows, &tokens, slot, span.kv_end, head_dim));
    sync_cube();

    let queries = own_rows(&own_tokens, span.q_end);
    let mut lse = Array::<f32>::new(2usize);
    let mut d = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        lse[half] = f32::new(0.0);
        d[half] = f32::new(0.0);
        if queries[half] != NONE {
            let row = (own.sequence * heads as usize + own.head) * seq_q as usize
                + usize::cast_from(queries[half] - span.q_start);
            let of_row = stats_at(stats, row, (batch * heads * seq_q) as usize);
            lse[half] = of_row.lse * log2_e;
            d[half] = of_row.d;
        }
    }

    let mut sums = zeros(key_tiles);
    while cursor.any(&own.walk) {
        let next_values = values.fetch(v, &v_rows, &tokens, slot, span.kv_end, value_dim);
        let products = scores::<E, N>(&owned, &keys, 0usize, tiles, head_dim);
        values.put(&next_values);
        sync_cube();

        let distances = cursor.distances();
        let keys_reach = rows_reach(index, &cursor.rows(&span, visited), visited);
        let one_block = queries_reach.first_block == queries_reach.last_block;
        let all = all_attend(&distances, &queries_reach, &keys_reach, one_block, tile);
        let mut bits = u32::MAX.runtime();
        if !(keys_reach.complete && all) {
            bits = attended(
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
        }
        // The next keys are on their way while the gradients are computed and used.
        cursor.advance(index, &own.walk, &span, tile, visited);
        slot = comptime!(visited.rows) - slot;
        cursor.visit(&mut tokens, slot, index, &own.walk, &span, visited);
        sync_cube();
        let next_keys = keys.fetch(k, &k_rows, &tokens, slot, span.kv_end, head_dim);
        #[unroll]
        for part in 0..comptime!(tiles / PART) {
            let first = comptime!(part * PART * 8);
            let mut d_scores = scores::<E, N>(&gradients, &values, first, PART, value_dim);
            #[unroll]
            for n in 0..comptime!(2 * PART) {
                let at = comptime!(2 * PART * part + n);
                let product = products[at];
                let mut pair = d_scores[n];
                #[unroll]
                for e in 0..2usize {
                    let p = weight(
                        product.extract(e) * factor - lse[comptime!(n % 2)],
                        config.approximate_exp2,
                    );
                    let gradient = p * (pair.extract(e) - d[comptime!(n % 2)]);
                    pair.insert(e, select(bit(bits, at, e), gradient, f32::new(0.0)));
                }
                d_scores[n] = pair;
            }
            accumulate::<E, N>(&mut sums, &d_scores, &keys, first, PART, head_dim);
        }
        sync_cube();
        keys.put(&next_keys);
        sync_cube();
    }

    // Of queries that attend nothing too: keys that others of the tile attend may be infinite, and 0 times that is not 0.
    let mut attending = Array::<i32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        attending[half] = select(lse[half] < f32::MIN, NONE, queries[half]);
    }
    scale_rows(&mut sums, &attending, key_tiles, scale);
    owned.put_sums(&sums, key_tiles);
    sync_cube();
    let dq_rows = head_rows::<E, N>(&*dq, own.sequence, own.head, span.q_start, LANES);
    owned.store(dq, &dq_rows, &own_tokens, head_dim);
}
