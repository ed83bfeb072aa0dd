//! dK and dV: a cube owns a tile of keys of one class and visits the queries of all heads of the group.

use cubecl::prelude::*;

use super::fragments::{accumulate, pair_row, scale_rows, scores, zeros};
use super::keys::{key_reach, moved_keys, query_cursor};
use super::mask::{all_attend, attended, bit, reach};
use super::queries::moved_tokens;
use super::size::units;
use super::stage::{LANES, chunks, fetch, stage};
use super::weight::weight;
use crate::cube::config::Config;
use crate::cube::rows::{HeadRows, head_rows};
use crate::cube::stats::stats_at;
use crate::cube::walk::{NONE, key_tile, span};

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
    let mut keys = Array::<i32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        keys[half] = own.token(index, pair_row(half), span.kv_start, span.kv_end, tile);
    }

    let mut owned = stage::<E, N>(tile.rows, head_dim, units);
    let mut values = stage::<E, N>(tile.rows, value_dim, units);
    let mut queries = stage::<E, N>(visited.rows, head_dim, units);
    let mut gradients = stage::<E, N>(visited.rows, value_dim, units);
    let mut tokens = Shared::<[i32]>::new_slice(comptime!(visited.rows));
    let mut lse = Shared::<[f32]>::new_slice(comptime!(visited.rows));
    let mut d = Shared::<[f32]>::new_slice(comptime!(visited.rows));

    let k_tokens = moved_keys(
        &own,
        index,
        span.kv_start,
        span.kv_end,
        tile,
        head_dim,
        units,
    );
    owned.put(&fetch::<E, N>(
        k, &k_rows, &k_tokens, tile.rows, head_dim, head_dim, units,
    ));
    let v_tokens = moved_keys(
        &own,
        index,
        span.kv_start,
        span.kv_end,
        tile,
        value_dim,
        units,
    );
    values.put(&fetch::<E, N>(
        v, &v_rows, &v_tokens, tile.rows, value_dim, value_dim, units,
    ));
    let records = heads_at + first_head;
    let mut cursor = query_cursor();
    cursor.settle(&own, index, records, group as i32, &span, tile, visited);
    let rows = cursor.rows(&span, visited);
    let q_tokens = moved_tokens(index, &rows, visited, head_dim, units);
    let head = first_head + max(cursor.head, 0) as usize;
    let q_rows = head_rows::<E, N>(q, sequence, head, span.q_start, LANES);
    let first_row = (sequence * heads as usize + head) * seq_q as usize;
    let q_lse = moved_lse(stats, first_row, span.q_start, &q_tokens, infinity);
    let next_queries = fetch::<E, N>(
        q,
        &q_rows,
        &q_tokens,
        visited.rows,
        head_dim,
        head_dim,
        units,
    );
    queries.put(&attending::<E, N>(&next_queries, &q_lse));
    sync_cube();

    let mut key_sums = zeros(key_tiles);
    let mut value_sums = zeros(value_tiles);
    while cursor.head < group as i32 {
        let rows = cursor.rows(&span, visited);
        let head = first_head + cursor.head as usize;
        let first_row = (sequence * heads as usize + head) * seq_q as usize;
        let d_out_rows = head_rows::<E, N>(d_out, sequence, head, span.q_start, LANES);
        let d_out_tokens = moved_tokens(index, &rows, visited, value_dim, units);
        let d_out_lse = moved_lse(stats, first_row, span.q_start, &d_out_tokens, infinity);
        let next_gradients = fetch::<E, N>(
            d_out,
            &d_out_rows,
            &d_out_tokens,
            visited.rows,
            value_dim,
            value_dim,
            units,
        );
        let mut token = NONE.runtime();
        let mut token_lse = -infinity;
        let mut token_d = f32::new(0.0);
        if UNIT_POS < comptime!(visited.rows as u32) {
            token = rows.token(index, UNIT_POS, visited);
            if token != NONE {
                let row = first_row + usize::cast_from(token - span.q_start);
                let of_row = stats_at(stats, row, all_stats);
                token_lse = of_row.lse;
                token_d = of_row.d;
            }
        }
        let products = scores::<E, N>(&owned, &queries, 0usize, tiles, head_dim);
        gradients.put(&attending::<E, N>(&next_gradients, &d_out_lse));
        if UNIT_POS < comptime!(visited.rows as u32) {
            // Queries that attend nothing are left out: theirs and their gradients' rows may hold anything.
            let empty = token_lse < f32::MIN;
            tokens[UNIT_POS as usize] = select(empty, NONE, token);
            lse[UNIT_POS as usize] = select(empty, infinity, token_lse * log2_e);
            d[UNIT_POS as usize] = token_d;
        }
        sync_cube();

        let distances = cursor.distances();
        let queries_reach = reach(index, &rows, visited);
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
                &tokens,
                0usize,
                tiles,
                false,
                tile,
            );
        }
        // The next queries are on their way while the gradients are computed and used.
        cursor.advance(&own, index, records, group as i32, &span, tile, visited);
        let next_rows = cursor.rows(&span, visited);
        let q_tokens = moved_tokens(index, &next_rows, visited, head_dim, units);
        let next_head = first_head + min(cursor.head, group as i32 - 1) as usize;
        let q_rows = head_rows::<E, N>(q, sequence, next_head, span.q_start, LANES);
        let next_first_row = (sequence * heads as usize + next_head) * seq_q as usize;
        let q_lse = moved_lse(stats, next_first_row, span.q_start, &q_tokens, infinity);
        let next_queries = fetch::<E, N>(
            q,
            &q_rows,
            &q_tokens,
            visited.rows,
            head_dim,
            head_dim,
            units,
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
                        product.extract(e) * factor - lse[column],
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
                        let gradient = p.extract(e) * (pair.extract(e) - d[column]);
                        pair.insert(e, select(bit(bits, at, e), gradient, f32::new(0.0)));
                    }
                    d_scores[n] = pair;
                }
                accumulate::<E, N>(&mut key_sums, &d_scores, &queries, first, PART, head_dim);
            }
        }
        sync_cube();
        queries.put(&attending::<E, N>(&next_queries, &q_lse));
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
        let tokens = moved_keys(&own, index, span.kv_start, rows_end, tile, head_dim, units);
        let dk_rows = head_rows::<E, N>(&*d_keys, sequence, kv_head, span.kv_start, LANES);
        owned.store(d_keys, &dk_rows, &tokens, head_dim);
    }
    if comptime!(config.values) {
        let tokens = moved_keys(&own, index, span.kv_start, rows_end, tile, value_dim, units);
        let dv_rows = HeadRows {
            base: dv_at + sequence * dv_sequence + kv_head * dv_head,
            stride: dv_token,
            start: span.kv_start,
        };
        values.store(d_keys, &dv_rows, &tokens, value_dim);
    }
}

/// The lse of the queries of which this unit moves a chunk.
#[cube]
fn moved_lse(
    stats: &[f32],
    first_row: usize,
    q_start: i32,
    tokens: &Array<i32>,
    infinity: f32,
) -> Array<f32> {
    let count = tokens.len().comptime();
    let mut lse = Array::<f32>::new(count);
    #[unroll]
    for n in 0..count {
        let mut of_row = -infinity;
        if tokens[n] != NONE {
            of_row = stats[first_row + usize::cast_from(tokens[n] - q_start)];
        }
        lse[n] = of_row;
    }
    lse
}

/// The chunks of queries that attend something; zeros for those of others, which may hold anything.
#[cube]
fn attending<E: Float, N: Size>(
    values: &Array<Vector<E, N>>,
    lse: &Array<f32>,
) -> Array<Vector<E, N>> {
    let count = values.len().comptime();
    let mut attending = Array::<Vector<E, N>>::new(count);
    #[unroll]
    for n in 0..count {
        let mut value = values[n];
        if lse[n] < f32::MIN {
            value = Vector::<E, N>::cast_from(0.0f32);
        }
        attending[n] = value;
    }
    attending
}
