//! Forward: a cube owns a tile of queries and visits the keys of their blocks with an online softmax.

use cubecl::prelude::*;

use super::mask::attended_keys;
use super::queries::{own_tokens, queries_of, staged_queries};
use super::rows::{clear_row, first_across, store_row};
use super::scratch::scratch;
use super::size::LANES;
use super::softmax::softmax;
use crate::cube::config::Config;
use crate::cube::round::rounded;
use crate::cube::rows::{head_keys, head_queries};
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, query_reach, query_tile};

/// `out` and `lse` of every query, and what `out` loses by rounding where `config.rounding`.
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
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let tile = comptime!(config.owned);
    let visited = comptime!(config.visited);
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let size = comptime!(config.unit);
    let (rows, held) = comptime!((size.rows(), size.held(value_dim)));

    let own = query_tile(index, CUBE_POS as u32, heads, kv_heads, tile);
    let span = own.span;
    let tokens = own_tokens(&own, index, tile, size);
    let queries = queries_of(&tokens, &span, size);
    let q_rows = head_queries::<E, N>(q, &span, own.head);
    let k_rows = head_keys::<E, N>(k, &span, own.kv_head);
    let v_rows = head_keys::<E, N>(v, &span, own.kv_head);
    let queries_reach = query_reach(&own, tile);
    let query_rows = staged_queries(&own, index, head_dim, tile, size);

    let mut scratch = scratch::<N>(size, comptime!([head_dim, value_dim]), 1usize);
    scratch.own::<E>(0usize, q, &q_rows, &query_rows);
    let mut softmax = softmax::<N>(value_dim, size);

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
                let mut weights =
                    scratch.products::<E>(0usize, q, &q_rows, &query_rows, k, &k_rows);

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
                softmax.weigh(&mut weights, bits, scale, &mut scratch);
                if comptime!(!size.whole) {
                    sync_cube();
                }
                scratch.put_weights(&weights);
                scratch.accumulate::<E>(&mut softmax.values, 1usize, v, &v_rows);
            }
        }
    }

    scratch.row_sum(&mut softmax.sums);
    let out_rows = head_queries::<E, N>(&*out, &span, own.head);
    #[unroll]
    for i in 0..rows {
        if tokens[i] != NONE {
            // Scores that are not a number leave the maximum alone, but not the sum.
            let empty = softmax.sums[i] == 0.0f32 || queries[i] == NONE;
            let factor = select(empty, f32::new(0.0), f32::new(1.0) / softmax.sums[i]);
            clear_row::<N>(&mut softmax.values, i, empty, value_dim, size);
            store_row::<E, N>(
                out,
                &out_rows,
                tokens[i],
                &softmax.values,
                i,
                factor,
                value_dim,
                config,
            );
            if comptime!(config.rounding) {
                #[unroll]
                for u in 0..held {
                    let exact = softmax.values[i * held + u] * Vector::<f32, N>::new(factor);
                    let rounded = rounded::<E, N>(exact, LANES, config.results);
                    softmax.values[i * held + u] = exact - Vector::<f32, N>::cast_from(rounded);
                }
                let rounding_rows = head_queries::<E, N>(&*rounding, &span, own.head);
                store_row::<E, N>(
                    rounding,
                    &rounding_rows,
                    tokens[i],
                    &softmax.values,
                    i,
                    f32::new(1.0),
                    value_dim,
                    config,
                );
            }
            if first_across(size) {
                let row = (span.item * heads as usize + own.head) * seq_q as usize
                    + usize::cast_from(tokens[i] - span.q_zero);
                lse[row] = select(
                    empty,
                    minus_infinity,
                    softmax.maxima[i] + softmax.sums[i].ln(),
                );
            }
        }
    }
}
