//! dK and dV: a cube owns a tile of keys of one class and visits the queries of all heads of the group.

use cubecl::prelude::*;

use super::mask::{all_but_none, attended, bit};
use super::rows::{clear_row, owned_row, staged_row, store_row};
use super::scratch::scratch;
use super::size::CubeSize;
use super::weight::{score_gradient, weight};
use crate::cube::config::Config;
use crate::cube::index::KEY_TILES;
use crate::cube::place::place;
use crate::cube::rows::{HeadRows, head_keys, head_queries};
use crate::cube::stats::stats_at;
use crate::cube::tile::Tile;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{
    KeyTile, NONE, Span, all_attend, heads_at, key_reach, key_tile, rows_reach, span,
};

/// `dV = sum over queries of P dO` and `dK = scale * sum over queries of dS q`, where `config` wants them.
///
/// Both are in one buffer, so that the pass takes no more than seven: `d_keys` has the strides of dK; the rows of dV begin at
/// vector `dv_at` and have the strides `dv_strides`, in vectors. Grid: key tiles of all sequences and heads, by class.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn dkdv<E: Float, N: Size>(
    q: &VectorTensor<E, N>,
    k: &VectorTensor<E, N>,
    v: &VectorTensor<E, N>,
    d_out: &VectorTensor<E, N>,
    stats: &[f32],
    d_keys: &mut VectorTensor<E, N>,
    index: &[i32],
    scale: f32,
    dv_at: usize,
    dv_sequence: usize,
    dv_head: usize,
    dv_token: usize,
    batch: u32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let tile = comptime!(config.owned);
    let visited = comptime!(config.visited);
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let size = comptime!(config.unit);
    let (rows, columns) = comptime!((size.rows(), size.columns()));
    let (key_held, value_held) = comptime!((size.held(head_dim), size.held(value_dim)));

    let cube = CUBE_POS as u32;
    let kv_head = (cube % kv_heads) as usize;
    let place = place(index, cube / kv_heads, KEY_TILES);
    let span = span(index, place.sequence);
    let heads_at = heads_at(index);
    let groups_at = heads_at + heads as usize;
    let own = key_tile(index, groups_at, kv_head, place.number, &span, tile);
    let k_rows = head_keys::<E, N>(k, &span, kv_head);
    let v_rows = head_keys::<E, N>(v, &span, kv_head);

    let mut tokens = Array::<i32>::new(rows);
    let mut keys = Array::<i32>::new(rows);
    #[unroll]
    for i in 0..rows {
        let token = own.token(
            index,
            owned_row(i, size),
            span.kv_start,
            span.kv_rows_end,
            tile,
        );
        tokens[i] = token;
        keys[i] = select(token < span.kv_end, token, NONE);
    }
    let key_rows = staged_keys(&own, index, &span, head_dim, tile, size);
    let value_rows = staged_keys(&own, index, &span, value_dim, tile, size);

    let mut scratch = scratch::<N>(size, comptime!([head_dim, value_dim]), 2usize);
    scratch.own::<E>(0usize, k, &k_rows, &key_rows);
    scratch.own::<E>(1usize, v, &v_rows, &value_rows);
    let mut key_sums = Array::<Vector<f32, N>>::new(comptime!(rows * key_held));
    let mut value_sums = Array::<Vector<f32, N>>::new(comptime!(rows * value_held));
    #[unroll]
    for n in 0..comptime!(rows * key_held) {
        key_sums[n] = Vector::new(0.0f32);
    }
    #[unroll]
    for n in 0..comptime!(rows * value_held) {
        value_sums[n] = Vector::new(0.0f32);
    }

    let group = (heads / kv_heads) as usize;
    for head_in_group in 0..group {
        let head = kv_head * group + head_in_group;
        let head_record = usize::cast_from(index[heads_at + head]);
        let q_rows = head_queries::<E, N>(q, &span, head);
        let d_out_rows = head_queries::<E, N>(d_out, &span, head);
        for interval in 0..own.intervals(index, head_in_group, tile) {
            let visits = own.visits(index, head_record, head_in_group, interval, &span, tile);
            for visit in 0..visits.blocks.visits(span.q_start, span.q_end, visited) {
                let query_rows = visits.blocks.rows(visit, span.q_start, span.q_end, visited);
                let at = (span.item * heads as usize + head) * seq_q as usize;
                scratch.visit_queries(index, &query_rows, stats, at, span.q_zero, visited);
                scratch.visit::<E>(0usize, q, &q_rows);
                scratch.visit::<E>(1usize, d_out, &d_out_rows);
                scratch.staged();

                let mut lse = Array::<f32>::new(columns);
                let mut d = Array::<f32>::new(columns);
                let mut queries = Array::<i32>::new(columns);
                #[unroll]
                for j in 0..columns {
                    queries[j] = scratch.visited_token(j);
                    lse[j] = f32::new(0.0);
                    d[j] = f32::new(0.0);
                    if queries[j] != NONE {
                        let row = at + usize::cast_from(queries[j] - span.q_zero);
                        let of_row = stats_at(stats, row, (batch * heads * seq_q) as usize);
                        lse[j] = of_row.lse;
                        d[j] = of_row.d;
                    }
                }
                let mut weights = scratch.products::<E>(0usize, k, &k_rows, &key_rows, q, &q_rows);
                let distances = visits.distances;
                let queries_reach = rows_reach(index, &query_rows, visited);
                let keys_reach = key_reach(&own, index, tile);
                let all = all_attend(&distances, &queries_reach, &keys_reach, tile);
                // Queries that attend nothing are left out.
                let mut bits = all_but_none(&queries, size);
                if !all {
                    bits = attended(
                        &distances,
                        index,
                        head_record,
                        &keys,
                        &queries,
                        false,
                        tile,
                        size,
                    );
                }
                #[unroll]
                for i in 0..rows {
                    #[unroll]
                    for j in 0..columns {
                        let n = comptime!(i * columns + j);
                        weights[n] = weight(bit(bits, n), weights[n] * scale, lse[j]);
                    }
                }
                if comptime!(config.values) {
                    scratch.put_weights(&weights);
                    scratch.accumulate::<E>(&mut value_sums, 1usize, d_out, &d_out_rows);
                }
                if comptime!(config.keys) {
                    let d_weights =
                        scratch.products::<E>(1usize, v, &v_rows, &value_rows, d_out, &d_out_rows);
                    #[unroll]
                    for i in 0..rows {
                        #[unroll]
                        for j in 0..columns {
                            let n = comptime!(i * columns + j);
                            weights[n] =
                                score_gradient(bit(bits, n), weights[n], d_weights[n], d[j]);
                        }
                    }
                    scratch.put_weights(&weights);
                    scratch.accumulate::<E>(&mut key_sums, 0usize, q, &q_rows);
                }
            }
        }
    }

    let dk_rows = head_keys::<E, N>(&*d_keys, &span, kv_head);
    let dv_rows = HeadRows {
        base: dv_at + span.item * dv_sequence + kv_head * dv_head,
        stride: dv_token,
        start: span.kv_zero,
    };
    #[unroll]
    for i in 0..rows {
        clear_row::<N>(&mut key_sums, i, keys[i] == NONE, head_dim, size);
        clear_row::<N>(&mut value_sums, i, keys[i] == NONE, value_dim, size);
        if tokens[i] != NONE {
            if comptime!(config.keys) {
                store_row::<E, N>(
                    d_keys, &dk_rows, tokens[i], &key_sums, i, scale, head_dim, config,
                );
            }
            if comptime!(config.values) {
                store_row::<E, N>(
                    d_keys,
                    &dv_rows,
                    tokens[i],
                    &value_sums,
                    i,
                    f32::new(1.0),
                    value_dim,
                    config,
                );
            }
        }
    }
}

/// The keys that this unit stages of rows of `dim` elements.
#[cube]
fn staged_keys(
    own: &KeyTile,
    index: &[i32],
    span: &Span,
    #[comptime] dim: usize,
    #[comptime] tile: Tile,
    #[comptime] size: CubeSize,
) -> Array<i32> {
    let count = comptime!(size.staged(size.owned, dim));
    let mut keys = Array::<i32>::new(count);
    #[unroll]
    for n in 0..count {
        let row = staged_row(n, comptime!(size.slice(dim)), size);
        keys[n] = own.token(index, row, span.kv_start, span.kv_end, tile);
    }
    keys
}
