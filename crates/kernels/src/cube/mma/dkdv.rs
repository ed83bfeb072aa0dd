//! dK and dV: a cube owns a tile of keys of one class and visits the queries of all heads of the group.

use cubecl::prelude::*;

use super::fragments::{accumulate, rounded, scale_rows, scores, zeros};
use super::keys::{Group, key_tokens, visited_queries};
use super::mask::{attended, keep_attended, own_rows};
use super::size::units;
use super::stage::{arrive, chunks, stage};
use super::weight::weight;
use crate::cube::config::Config;
use crate::cube::index::KEY_TILES;
use crate::cube::place::place;
use crate::cube::rows::{HeadRows, head_keys, head_queries};
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{heads_at, key_tile, span};

/// `dV = sum over queries of P dO` and `dK = scale * sum over queries of dS q`, where `config` wants them.
///
/// `d_keys` has the strides of dK; the rows of dV begin at vector `dv_at` and have the strides `dv_sequence`, `dv_head` and
/// `dv_token`, in vectors. Grid: key tiles of all sequences and heads, by class.
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
    infinity: f32,
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
    let (tile, visited, units) = comptime!((
        config.owned,
        config.visited,
        units(config.owned.rows, config.parts)
    ));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (parts, fast, products) = comptime!((config.parts, config.instructions, config.products));
    let (tiles, key_tiles, value_tiles) =
        comptime!((visited.rows / 8, chunks(head_dim), chunks(value_dim)));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = scale * log2_e;

    let cube = CUBE_POS as u32;
    let kv_head = (cube % kv_heads) as usize;
    let place = place(index, cube / kv_heads, KEY_TILES);
    let span = span(index, place.sequence);
    let heads_at = heads_at(index);
    let groups_at = heads_at + heads as usize;
    let own = key_tile(index, groups_at, kv_head, place.number, &span, tile);
    let first_head = kv_head * (heads / kv_heads) as usize;
    let k_rows = head_keys::<E, N>(k, &span, kv_head);
    let v_rows = head_keys::<E, N>(v, &span, kv_head);
    let mut owned = stage::<E, N>(tile.rows, head_dim, units, fast, products);
    let mut values = stage::<E, N>(tile.rows, value_dim, units, fast, products);
    // Two slots: those of this visit and those of the next.
    let mut queries = stage::<E, N>(comptime!(2 * visited.rows), head_dim, units, fast, products);
    let mut gradients = stage::<E, N>(
        comptime!(2 * visited.rows),
        value_dim,
        units,
        fast,
        products,
    );
    let own_tokens = key_tokens(&own, index, span.kv_start, span.kv_rows_end, tile, units);
    let group = Group {
        heads: (heads / kv_heads) as i32,
        records: heads_at + first_head,
        stats: (span.item * heads as usize + first_head) * seq_q as usize,
        head_rows: seq_q as usize,
        all_rows: (batch * heads * seq_q) as usize,
    };
    let mut visits = visited_queries(&own, index, stats, group, span, infinity, tile, visited);
    sync_cube();
    let (rows, end) = (comptime!(visited.rows), span.q_end);
    owned.fill(k, &k_rows, &own_tokens, span.kv_end, tile.rows, head_dim);
    values.fill(v, &v_rows, &own_tokens, span.kv_end, tile.rows, value_dim);
    let head = first_head + visits.at.visit.head as usize;
    let q_rows = head_queries::<E, N>(q, &span, head);
    queries.fill(q, &q_rows, &visits.rows.tokens.of_rows, end, rows, head_dim);
    let d_out_rows = head_queries::<E, N>(d_out, &span, head);
    gradients.fill(
        d_out,
        &d_out_rows,
        &visits.rows.tokens.of_rows,
        end,
        rows,
        value_dim,
    );

    let keys = own_rows(&own_tokens, span.kv_end, parts, products);
    let mut key_sums = zeros(comptime!(parts * key_tiles));
    let mut value_sums = zeros(comptime!(parts * value_tiles));
    while visits.at.visit.any {
        arrive(fast);
        // The next rows are on their way while these are used, and the tokens of those after them are looked up.
        let (slot, other) = (visits.at.slot, visits.at.next_slot());
        let next = visits.at.next_tokens();
        let head = first_head + visits.at.next.head as usize;
        let q_rows = head_queries::<E, N>(q, &span, head);
        let tokens = &visits.rows.tokens.of_rows;
        let moved = queries.begin(q, &q_rows, tokens, next, end, other, rows, head_dim);
        visits.look_ahead(&own, index, stats, infinity);
        let mut weights = scores::<E, N>(&owned, &queries, slot, tiles, head_dim, parts);
        queries.finish(&moved, other, rows);
        let d_out_rows = head_queries::<E, N>(d_out, &span, head);
        let tokens = &visits.rows.tokens.of_rows;
        let moved = gradients.begin(
            d_out,
            &d_out_rows,
            tokens,
            next,
            end,
            other,
            rows,
            value_dim,
        );

        let mut d_scores = zeros(comptime!(parts * tiles));
        if comptime!(config.keys) {
            d_scores = scores::<E, N>(&values, &gradients, slot, tiles, value_dim, parts);
        }
        #[unroll]
        for n in 0..comptime!(2 * parts * tiles) {
            let (mut p, mut d_score) = (weights[n], d_scores[n]);
            #[unroll]
            for e in 0..2usize {
                let row = visits.rows.of_pair(visits.at.tokens, n, e, tiles, products);
                let weight = weight(p.extract(e) * factor - row.extract(0usize), fast);
                p.insert(e, weight);
                d_score.insert(e, weight * (d_score.extract(e) - row.extract(1usize)));
            }
            weights[n] = p;
            d_scores[n] = d_score;
        }
        if !visits.at.visit.all || visits.rows.tokens.leave_out(visits.at.tokens, rows) {
            let head_record =
                usize::cast_from(index[group.records + visits.at.visit.head as usize]);
            let bits = attended(
                &visits.at.visit.distances,
                index,
                head_record,
                &keys,
                &visits.rows.tokens.of_rows,
                visits.at.tokens,
                tiles,
                parts,
                false,
                tile,
                products,
            );
            keep_attended(&mut weights, &bits, f32::new(0.0), tiles, parts);
            keep_attended(&mut d_scores, &bits, f32::new(0.0), tiles, parts);
        }
        if comptime!(config.values) {
            let weights = rounded::<E>(&weights, comptime!(parts * tiles));
            accumulate::<E, N>(
                &mut value_sums,
                &weights,
                &gradients,
                slot,
                tiles,
                value_dim,
                parts,
            );
        }
        if comptime!(config.keys) {
            let d_scores = rounded::<E>(&d_scores, comptime!(parts * tiles));
            accumulate::<E, N>(
                &mut key_sums,
                &d_scores,
                &queries,
                slot,
                tiles,
                head_dim,
                parts,
            );
        }
        gradients.finish(&moved, other, rows);
        visits.turn(index);
    }
    // What is owned has been read, and is written next.
    arrive(fast);

    if comptime!(config.keys) {
        scale_rows(&mut key_sums, &keys, key_tiles, parts, products, scale);
        owned.put_sums(&key_sums, key_tiles, parts);
    }
    if comptime!(config.values) {
        scale_rows(
            &mut value_sums,
            &keys,
            value_tiles,
            parts,
            products,
            f32::new(1.0),
        );
        values.put_sums(&value_sums, value_tiles, parts);
    }
    sync_cube();
    if comptime!(config.keys) {
        let dk_rows = head_keys::<E, N>(&*d_keys, &span, kv_head);
        owned.store(d_keys, &dk_rows, &own_tokens, head_dim);
    }
    if comptime!(config.values) {
        let dv_rows = HeadRows {
            base: dv_at + span.item * dv_sequence + kv_head * dv_head,
            stride: dv_token,
            start: span.kv_zero,
        };
        values.store(d_keys, &dv_rows, &own_tokens, value_dim);
    }
}
