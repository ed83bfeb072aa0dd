//! dK and dV: a cube owns a tile of keys of one class and visits the queries of all heads of the group.

use cubecl::prelude::*;

use super::fragments::{accumulate, scale_rows, scores, zeros};
use super::keys::{key_tokens, query_cursor, visited_stats};
use super::mask::{attended, bit, own_rows};
use super::size::units;
use super::stage::{LANES, chunks, stage};
use super::weight::weight;
use crate::cube::config::Config;
use crate::cube::rows::{HeadRows, head_rows};
use crate::cube::walk::{all_attend, key_reach, key_tile, rows_reach, span};

/// Tiles of 8 queries whose gradients are held at a time.
const PART: usize = 2;

/// `dV = sum over queries of P dO` and `dK = scale * sum over queries of dS q`, where `config` wants them.
///
/// `d_keys` has the strides of dK; the rows of dV begin at vector `dv_at` and have the strides `dv_sequence`, `dv_head` and
/// `dv_token`, in vectors. Grid: key tiles of all sequences and heads, by class.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn dkdv<E: Float, N: Size>(
    q: &Tensor<Vector<E, N>>,
    k: &Tensor<Vector<E, N>>,
    v: &Tensor<Vector<E, N>>,
    d_out: &Tensor<Vector<E, N>>,
    stats: &[f32],
    d_keys: &mut Tensor<Vector<E, N>>,
    index: &[i32],
    scale: f32,
    infinity: f32,
    dv_at: usize,
    dv_sequence: usize,
    dv_head: usize,
    dv_token: usize,
    batch: u32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    seq_kv: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile, visited, units) =
        comptime!((config.owned, config.visited, units(config.owned.rows)));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (tiles, key_tiles, value_tiles) =
        comptime!((visited.rows / 8, chunks(head_dim), chunks(value_dim)));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = scale * log2_e;

    let cube = CUBE_POS as u32;
    let kv_head = (cube % kv_heads) as usize;
    let sequence = ((cube / kv_heads) % batch) as usize;
    let span = span(index, sequence);
    let rows_end = span.kv_start + i32::cast_from(seq_kv);
    let heads_at = (batch * 4u32) as usize;
    let own = key_tile(
        index,
        heads_at + heads as usize,
        kv_head,
        i32::cast_from(cube / kv_heads / batch),
        span.kv_start,
        rows_end,
        tile,
    );
    let group = heads / kv_heads;
    let first_head = kv_head * group as usize;
    let k_rows = head_rows::<E, N>(k, sequence, kv_head, span.kv_start, LANES);
    let v_rows = head_rows::<E, N>(v, sequence, kv_head, span.kv_start, LANES);
    let all_stats = (batch * heads * seq_q) as usize;
    let mut owned = stage::<E, N>(tile.rows, head_dim, units);
    let mut values = stage::<E, N>(tile.rows, value_dim, units);
    let mut queries = stage::<E, N>(visited.rows, head_dim, units);
    let mut gradients = stage::<E, N>(visited.rows, value_dim, units);
    // Two slots: those of this visit and those of the next.
    let mut stats_of = visited_stats(comptime!(2 * visited.rows));
    let own_tokens = key_tokens(&own, index, span.kv_start, rows_end, tile, units);
    let records = heads_at + first_head;
    let mut slot = 0usize.runtime();
    let mut cursor = query_cursor();
    cursor.settle(&own, index, records, group as i32, &span, tile, visited);
    let mut head = first_head + max(cursor.head, 0) as usize;
    stats_of.visit(
        slot,
        &cursor.rows(&span, visited),
        index,
        stats,
        (sequence * heads as usize + head) * seq_q as usize,
        all_stats,
        span.q_start,
        infinity,
        visited,
    );
    sync_cube();
    owned.put(&owned.fetch(k, &k_rows, &own_tokens, 0usize, span.kv_end, head_dim));
    values.put(&values.fetch(v, &v_rows, &own_tokens, 0usize, span.kv_end, value_dim));
    let q_rows = head_rows::<E, N>(q, sequence, head, span.q_start, LANES);
    queries.put(&queries.fetch(q, &q_rows, &stats_of.tokens, slot, span.q_end, head_dim));
    sync_cube();

    let keys = own_rows(&own_tokens, span.kv_end);
    let mut key_sums = zeros(key_tiles);
    let mut value_sums = zeros(value_tiles);
    while cursor.head < group as i32 {
        let d_out_rows = head_rows::<E, N>(d_out, sequence, head, span.q_start, LANES);
        let next_gradients = gradients.fetch(
            d_out,
            &d_out_rows,
            &stats_of.tokens,
            slot,
            span.q_end,
            value_dim,
        );
        let products = scores::<E, N>(&owned, &queries, 0usize, tiles, head_dim);
        gradients.put(&next_gradients);
        sync_cube();

        let distances = cursor.distances();
        let queries_reach = rows_reach(index, &cursor.rows(&span, visited), visited);
        let keys_reach = key_reach(&own, index, tile);
        let one_block = queries_reach.first_block == queries_reach.last_block;
        let all = all_attend(&distances, &queries_reach, &keys_reach, one_block, tile);
        let mut bits = u32::MAX.runtime();
        if !(queries_reach.complete && all) {
            let head_record = usize::cast_from(index[records + cursor.head as usize]);
            bits = attended(
                &distances,
                index,
                head_record,
                &keys,
                &stats_of.tokens,
                slot,
                tiles,
                false,
                tile,
            );
        }
        // The next queries are on their way while the gradients are computed and used.
        cursor.advance(&own, index, records, group as i32, &span, tile, visited);
        let next_slot = comptime!(visited.rows) - slot;
        head = first_head + min(cursor.head, group as i32 - 1) as usize;
        stats_of.visit(
            next_slot,
            &cursor.rows(&span, visited),
            index,
            stats,
            (sequence * heads as usize + head) * seq_q as usize,
            all_stats,
            span.q_start,
            infinity,
            visited,
        );
        sync_cube();
        let q_rows = head_rows::<E, N>(q, sequence, head, span.q_start, LANES);
        let next_queries = queries.fetch(
            q,
            &q_rows,
            &stats_of.tokens,
            next_slot,
            span.q_end,
            head_dim,
        );
        #[unroll]
        for part in 0..comptime!(tiles / PART) {
            let first = comptime!(part * PART * 8);
            let mut weights = zeros(PART);
            #[unroll]
            for n in 0..comptime!(2 * PART) {
                let at = comptime!(2 * PART * part + n);
                let product = products[at];
                let mut pair = weights[n];
                #[unroll]
                for e in 0..2usize {
                    let column = comptime!(at / 2 * 8 + e) + UNIT_POS as usize % 4usize * 2usize;
                    let p = weight(
                        product.extract(e) * factor - stats_of.lse[slot + column],
                        config.approximate_exp2,
                    );
                    pair.insert(e, select(bit(bits, at, e), p, f32::new(0.0)));
                }
                weights[n] = pair;
            }
            if comptime!(config.values) {
                accumulate::<E, N>(
                    &mut value_sums,
                    &weights,
                    &gradients,
                    first,
                    PART,
                    value_dim,
                );
            }
            if comptime!(config.keys) {
                let mut d_scores = scores::<E, N>(&values, &gradients, first, PART, value_dim);
                #[unroll]
                for n in 0..comptime!(2 * PART) {
                    let at = comptime!(2 * PART * part + n);
                    let p = weights[n];
                    let mut pair = d_scores[n];
                    #[unroll]
                    for e in 0..2usize {
                        let column =
                            comptime!(at / 2 * 8 + e) + UNIT_POS as usize % 4usize * 2usize;
                        let gradient = p.extract(e) * (pair.extract(e) - stats_of.d[slot + column]);
                        pair.insert(e, select(bit(bits, at, e), gradient, f32::new(0.0)));
                    }
                    d_scores[n] = pair;
                }
                accumulate::<E, N>(&mut key_sums, &d_scores, &queries, first, PART, head_dim);
            }
        }
        sync_cube();
        queries.put(&next_queries);
        slot = next_slot;
        sync_cube();
    }

    if comptime!(config.keys) {
        scale_rows(&mut key_sums, &keys, key_tiles, scale);
        owned.put_sums(&key_sums, key_tiles);
    }
    if comptime!(config.values) {
        scale_rows(&mut value_sums, &keys, value_tiles, f32::new(1.0));
        values.put_sums(&value_sums, value_tiles);
    }
    sync_cube();
    if comptime!(config.keys) {
        let dk_rows = head_rows::<E, N>(&*d_keys, sequence, kv_head, span.kv_start, LANES);
        owned.store(d_keys, &dk_rows, &own_tokens, head_dim);
    }
    if comptime!(config.values) {
        let dv_rows = HeadRows {
            base: dv_at + sequence * dv_sequence + kv_head * dv_head,
            stride: dv_token,
            start: span.kv_start,
        };
        values.store(d_keys, &dv_rows, &own_tokens, value_dim);
    }
}
