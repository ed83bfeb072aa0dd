//! dQ: a cube owns a tile of queries and visits the keys of their blocks.

use cubecl::prelude::*;

use super::fragments::{accumulate, rounded, scale_rows, scores, zeros};
use super::mask::{attended, keep_attended, own_rows};
use super::queries::{own_tokens, visited_keys};
use super::size::units;
use super::stage::{arrive, chunks, stage};
use super::weight::weight;
use crate::cube::config::Config;
use crate::cube::rows::{head_keys, head_queries};
use crate::cube::stats::stats_at;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, query_tile};

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
    let (tile, visited, units) = comptime!((
        config.owned,
        config.visited,
        units(config.owned.rows, config.parts)
    ));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (parts, fast, products) = comptime!((config.parts, config.instructions, config.products));
    let (tiles, key_tiles) = comptime!((visited.rows / 8, chunks(head_dim)));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = scale * log2_e;

    let own = query_tile(index, CUBE_POS as u32, heads, kv_heads, tile);
    let span = own.span;
    let q_rows = head_queries::<E, N>(q, &span, own.head);
    let d_out_rows = head_queries::<E, N>(d_out, &span, own.head);
    let k_rows = head_keys::<E, N>(k, &span, own.kv_head);
    let v_rows = head_keys::<E, N>(v, &span, own.kv_head);

    let mut owned = stage::<E, N>(tile.rows, head_dim, units, fast, products);
    let mut gradients = stage::<E, N>(tile.rows, value_dim, units, fast, products);
    // Two slots: those of this visit and those of the next.
    let mut keys = stage::<E, N>(comptime!(2 * visited.rows), head_dim, units, fast, products);
    let mut values = stage::<E, N>(
        comptime!(2 * visited.rows),
        value_dim,
        units,
        fast,
        products,
    );
    let own_tokens = own_tokens(&own, index, tile, units);
    let mut visits = visited_keys(&own, index, tile, visited);
    sync_cube();
    let (rows, end) = (comptime!(visited.rows), span.kv_end);
    owned.fill(q, &q_rows, &own_tokens, span.q_end, tile.rows, head_dim);
    gradients.fill(
        d_out,
        &d_out_rows,
        &own_tokens,
        span.q_end,
        tile.rows,
        value_dim,
    );
    keys.fill(k, &k_rows, &visits.tokens, end, rows, head_dim);
    values.fill(v, &v_rows, &visits.tokens, end, rows, value_dim);

    let queries = own_rows(&own_tokens, span.q_end, parts, products);
    let own_count = comptime!(products.rows(parts));
    let mut lse = Array::<f32>::new(own_count);
    let mut d = Array::<f32>::new(own_count);
    #[unroll]
    for row in 0..own_count {
        lse[row] = f32::new(0.0);
        d[row] = f32::new(0.0);
        if queries[row] != NONE {
            let at = (span.item * heads as usize + own.head) * seq_q as usize
                + usize::cast_from(queries[row] - span.q_zero);
            let of_row = stats_at(stats, at, (batch * heads * seq_q) as usize);
            lse[row] = of_row.lse * log2_e;
            d[row] = of_row.d;
        }
    }

    let mut sums = zeros(comptime!(parts * key_tiles));
    while visits.at.visit.any {
        arrive(fast);
        // The next rows are on their way while these are used, and the tokens of those after them are looked up.
        let (slot, other) = (visits.at.slot, visits.at.next_slot());
        let next = visits.at.next_tokens();
        let moved = keys.begin(k, &k_rows, &visits.tokens, next, end, other, rows, head_dim);
        visits.look_ahead(&own, index);
        let key_scores = scores::<E, N>(&owned, &keys, slot, tiles, head_dim, parts);
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

        let mut d_scores = scores::<E, N>(&gradients, &values, slot, tiles, value_dim, parts);
        #[unroll]
        for n in 0..comptime!(2 * parts * tiles) {
            let row = comptime!(products.row_of(n, tiles));
            let score = key_scores[n];
            let mut d_score = d_scores[n];
            #[unroll]
            for e in 0..2usize {
                let p = weight(score.extract(e) * factor - lse[row], fast);
                d_score.insert(e, p * (d_score.extract(e) - d[row]));
            }
            d_scores[n] = d_score;
        }
        if !visits.at.visit.all {
            let bits = attended(
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
                products,
            );
            keep_attended(&mut d_scores, &bits, f32::new(0.0), tiles, parts);
        }
        let d_scores = rounded::<E>(&d_scores, comptime!(parts * tiles));
        accumulate::<E, N>(&mut sums, &d_scores, &keys, slot, tiles, head_dim, parts);
        values.finish(&moved, other, rows);
        visits.turn(&own, index);
    }
    // What is owned has been read, and is written next.
    arrive(fast);

    // Of queries that attend nothing too: keys that others of the tile attend may be infinite, and 0 times that is not 0.
    let mut attending = Array::<i32>::new(own_count);
    #[unroll]
    for row in 0..own_count {
        attending[row] = select(lse[row] < f32::MIN, NONE, queries[row]);
    }
    scale_rows(&mut sums, &attending, key_tiles, parts, products, scale);
    owned.put_sums(&sums, key_tiles, parts);
    sync_cube();
    let dq_rows = head_queries::<E, N>(&*dq, &span, own.head);
    owned.store(dq, &dq_rows, &own_tokens, head_dim);
}
