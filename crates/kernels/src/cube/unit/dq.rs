//! dQ: a cube owns a tile of queries and visits the keys of their blocks.

use cubecl::prelude::*;

use super::mask::{attended_keys, bit};
use super::queries::{own_tokens, queries_of, staged_queries};
use super::rows::{clear_row, store_row};
use super::scratch::scratch;
use super::weight::{score_gradient, weight};
use crate::cube::config::Config;
use crate::cube::rows::{head_keys, head_queries};
use crate::cube::stats::stats_at;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, query_reach, query_tile};

/// `dQ = scale * sum over keys of dS k`, with `dS = P * (dO v - D)`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn dq<E: Float, N: Size>(
    q: &VectorTensor<E, N>,
    k: &VectorTensor<E, N>,
    v: &VectorTensor<E, N>,
    d_out: &VectorTensor<E, N>,
    stats: &[f32],
    dq: &mut VectorTensor<E, N>,
    index: &[i32],
    scale: f32,
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
    let (rows, columns, held) = comptime!((size.rows(), size.columns(), size.held(head_dim)));

    let own = query_tile(index, CUBE_POS as u32, heads, kv_heads, tile);
    let span = own.span;
    let tokens = own_tokens(&own, index, tile, size);
    let queries = queries_of(&tokens, &span, size);
    let q_rows = head_queries::<E, N>(q, &span, own.head);
    let d_out_rows = head_queries::<E, N>(d_out, &span, own.head);
    let k_rows = head_keys::<E, N>(k, &span, own.kv_head);
    let v_rows = head_keys::<E, N>(v, &span, own.kv_head);
    let queries_reach = query_reach(&own, tile);
    let query_rows = staged_queries(&own, index, head_dim, tile, size);
    let gradient_rows = staged_queries(&own, index, value_dim, tile, size);

    let mut lse = Array::<f32>::new(rows);
    let mut d = Array::<f32>::new(rows);
    #[unroll]
    for i in 0..rows {
        lse[i] = f32::new(0.0);
        d[i] = f32::new(0.0);
        if queries[i] != NONE {
            let row = (span.item * heads as usize + own.head) * seq_q as usize
                + usize::cast_from(queries[i] - span.q_zero);
            let of_row = stats_at(stats, row, (batch * heads * seq_q) as usize);
            lse[i] = of_row.lse;
            d[i] = of_row.d;
        }
    }

    let mut scratch = scratch::<N>(size, comptime!([head_dim, value_dim]), 2usize);
    scratch.own::<E>(0usize, q, &q_rows, &query_rows);
    scratch.own::<E>(1usize, d_out, &d_out_rows, &gradient_rows);
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(rows * held));
    #[unroll]
    for n in 0..comptime!(rows * held) {
        sums[n] = Vector::new(0.0f32);
    }
    for band in 0..own.walk.bands {
        for phase in 0..own.walk.phases(index, band, tile) {
            let visits = own.walk.visits(index, band, phase, &span, tile);
            for visit in 0..visits.blocks.visits(span.kv_start, span.kv_end, visited) {
                let key_rows = visits
                    .blocks
                    .rows(visit, span.kv_start, span.kv_end, visited);
                scratch.visit_keys(index, &key_rows, &own.walk, &visits.distances, visited);
                scratch.visit::<E>(0usize, k, &k_rows);
                scratch.visit::<E>(1usize, v, &v_rows);
                scratch.staged();
                let scores = scratch.products::<E>(0usize, q, &q_rows, &query_rows, k, &k_rows);
                let d_weights =
                    scratch.products::<E>(1usize, d_out, &d_out_rows, &gradient_rows, v, &v_rows);
                let bits = attended_keys::<N>(
                    index,
                    &own,
                    &visits.distances,
                    &queries,
                    &queries_reach,
                    &key_rows,
                    &scratch,
                    config,
                );
                let mut d_scores = Array::<f32>::new(comptime!(size.scores()));
                #[unroll]
                for i in 0..rows {
                    #[unroll]
                    for j in 0..columns {
                        let n = comptime!(i * columns + j);
                        let attended = bit(bits, n);
                        let p = weight(attended, scores[n] * scale, lse[i]);
                        d_scores[n] = score_gradient(attended, p, d_weights[n], d[i]);
                    }
                }
                scratch.put_weights(&d_scores);
                scratch.accumulate::<E>(&mut sums, 0usize, k, &k_rows);
            }
        }
    }
    let dq_rows = head_queries::<E, N>(&*dq, &span, own.head);
    #[unroll]
    for i in 0..rows {
        let empty = queries[i] == NONE || lse[i] < f32::MIN;
        clear_row::<N>(&mut sums, i, empty, head_dim, size);
        if tokens[i] != NONE {
            store_row::<E, N>(dq, &dq_rows, tokens[i], &sums, i, scale, head_dim, config);
        }
    }
}
