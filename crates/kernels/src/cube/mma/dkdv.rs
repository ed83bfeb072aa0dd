//! dK and dV: a cube owns a tile of keys of one class and visits the queries of all heads of the group.

use cubecl::prelude::*;

use super::fragments::{accumulate, scale_rows, scores, zeros};
use super::keys::{VisitPlace, key_tokens, query_cursor, visited_stats};
use super::mask::{all_bits, attended, keep_attended, own_rows};
use super::size::units;
use super::stage::{LANES, arrive, chunks, stage};
use super::visit::{next_of_three, no_visit};
use super::weight::weight;
use crate::cube::config::Config;
use crate::cube::rows::{HeadRows, head_rows};
use crate::cube::walk::{key_reach, key_tile, span};

/// Tiles of 8 queries whose gradients are held at a time.
const STEP: usize = 2;

/// The pair among those of all tiles that is pair `n` of those of a step.
fn pair_of_all(n: usize, step: usize, tiles: usize) -> usize {
    let (part, pair) = (n / (2 * STEP), n % (2 * STEP));
    2 * (part * tiles + step * STEP) + pair
}

/// The visited row of element `e` of a pair.
#[cube]
fn visited_column(
    #[comptime] pair: usize,
    #[comptime] e: usize,
    #[comptime] tiles: usize,
) -> usize {
    comptime!(pair % (2 * tiles) / 2 * 8 + e) + UNIT_POS as usize % 4usize * 2usize
}

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
    let (tile, visited, units) = comptime!((
        config.owned,
        config.visited,
        units(config.owned.rows, config.parts)
    ));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (parts, fast) = comptime!((config.parts, config.instructions));
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
    // Two slots: those of this visit and those of the next.
    let mut queries = stage::<E, N>(comptime!(2 * visited.rows), head_dim, units);
    let mut gradients = stage::<E, N>(comptime!(2 * visited.rows), value_dim, units);
    // Three: the tokens of a visit are known one visit before its rows are on their way.
    let mut stats_of = visited_stats(comptime!(3 * visited.rows));
    let own_tokens = key_tokens(&own, index, span.kv_start, rows_end, tile, units);
    let records = heads_at + first_head;
    let keys_reach = key_reach(&own, index, tile);
    let mut slot = 0usize.runtime();
    let mut at = 0usize.runtime();
    let (mut visit, mut next) = (no_visit(), no_visit());
    let group_rows = (sequence * heads as usize + first_head) * seq_q as usize;
    let place = VisitPlace {
        group: group as i32,
        group_rows,
        head_rows: seq_q as usize,
        all_rows: all_stats,
    };
    let mut cursor = query_cursor();
    cursor.settle(&own, index, records, group as i32, &span, tile, visited);
    cursor.visit(
        &mut stats_of,
        at,
        index,
        stats,
        &place,
        &span,
        infinity,
        visited,
    );
    cursor.describe(&mut visit, index, &span, &keys_reach, &place, tile, visited);
    cursor.advance(&own, index, records, group as i32, &span, tile, visited);
    cursor.visit(
        &mut stats_of,
        visited.rows,
        index,
        stats,
        &place,
        &span,
        infinity,
        visited,
    );
    cursor.describe(&mut next, index, &span, &keys_reach, &place, tile, visited);
    sync_cube();
    let (q_end, end) = (span.q_end, span.kv_end);
    let rows = comptime!(visited.rows);
    let moved = owned.begin(
        k,
        &k_rows,
        &own_tokens,
        0usize,
        end,
        0usize,
        tile.rows,
        head_dim,
        fast,
    );
    owned.finish(&moved, 0usize, tile.rows, fast);
    let moved = values.begin(
        v,
        &v_rows,
        &own_tokens,
        0usize,
        end,
        0usize,
        tile.rows,
        value_dim,
        fast,
    );
    values.finish(&moved, 0usize, tile.rows, fast);
    let head = first_head + visit.head as usize;
    let q_rows = head_rows::<E, N>(q, sequence, head, span.q_start, LANES);
    let moved = queries.begin(
        q,
        &q_rows,
        &stats_of.tokens,
        at,
        q_end,
        slot,
        rows,
        head_dim,
        fast,
    );
    queries.finish(&moved, slot, rows, fast);
    let d_out_rows = head_rows::<E, N>(d_out, sequence, head, span.q_start, LANES);
    let moved = gradients.begin(
        d_out,
        &d_out_rows,
        &stats_of.tokens,
        at,
        q_end,
        slot,
        rows,
        value_dim,
        fast,
    );
    gradients.finish(&moved, slot, rows, fast);

    let keys = own_rows(&own_tokens, span.kv_end, parts);
    let mut key_sums = zeros(comptime!(parts * key_tiles));
    let mut value_sums = zeros(comptime!(parts * value_tiles));
    while visit.any {
        arrive(fast);
        // The next rows are on their way while these are used, and the tokens of those after them are looked up.
        let (other, next_at) = (rows - slot, next_of_three(at, rows));
        let head = first_head + next.head as usize;
        let q_rows = head_rows::<E, N>(q, sequence, head, span.q_start, LANES);
        let moved = queries.begin(
            q,
            &q_rows,
            &stats_of.tokens,
            next_at,
            q_end,
            other,
            rows,
            head_dim,
            fast,
        );
        cursor.advance(&own, index, records, group as i32, &span, tile, visited);
        let after = next_of_three(next_at, rows);
        cursor.visit(
            &mut stats_of,
            after,
            index,
            stats,
            &place,
            &span,
            infinity,
            visited,
        );
        let products = scores::<E, N>(&owned, &queries, slot, tiles, head_dim, parts);
        queries.finish(&moved, other, rows, fast);
        let d_out_rows = head_rows::<E, N>(d_out, sequence, head, span.q_start, LANES);
        let moved = gradients.begin(
            d_out,
            &d_out_rows,
            &stats_of.tokens,
            next_at,
            q_end,
            other,
            rows,
            value_dim,
            fast,
        );

        let mut bits = all_bits(parts);
        if !visit.all {
            let head_record = usize::cast_from(index[records + visit.head as usize]);
            attended(
                &visit.distances(),
                index,
                head_record,
                &keys,
                &stats_of.tokens,
                at,
                tiles,
                parts,
                false,
                tile,
                &mut bits,
            );
        }
        #[unroll]
        for step in 0..comptime!(tiles / STEP) {
            let first = slot + comptime!(step * STEP * 8);
            let mut weights = zeros(comptime!(parts * STEP));
            #[unroll]
            for n in 0..comptime!(2 * parts * STEP) {
                let all = comptime!(pair_of_all(n, step, tiles));
                let product = products[all];
                let mut pair = weights[n];
                #[unroll]
                for e in 0..2usize {
                    let column = at + visited_column(all, e, tiles);
                    let lse = stats_of.lse[column];
                    let p = weight(product.extract(e) * factor - lse, fast);
                    // A query that is left out is a row of zeros, and a key may be infinite.
                    pair.insert(e, select(lse > f32::MAX, f32::new(0.0), p));
                }
                weights[n] = pair;
            }
            if !visit.all {
                keep_attended(
                    &mut weights,
                    &bits,
                    comptime!(step * STEP),
                    STEP,
                    tiles,
                    parts,
                );
            }
            if comptime!(config.values) {
                accumulate::<E, N>(
                    &mut value_sums,
                    &weights,
                    &gradients,
                    first,
                    STEP,
                    value_dim,
                    parts,
                );
            }
            if comptime!(config.keys) {
                let mut d_scores =
                    scores::<E, N>(&values, &gradients, first, STEP, value_dim, parts);
                #[unroll]
                for n in 0..comptime!(2 * parts * STEP) {
                    let all = comptime!(pair_of_all(n, step, tiles));
                    let p = weights[n];
                    let mut pair = d_scores[n];
                    #[unroll]
                    for e in 0..2usize {
                        let column = at + visited_column(all, e, tiles);
                        let gradient = p.extract(e) * (pair.extract(e) - stats_of.d[column]);
                        let left_out = stats_of.lse[column] > f32::MAX;
                        pair.insert(e, select(left_out, f32::new(0.0), gradient));
                    }
                    d_scores[n] = pair;
                }
                if !visit.all {
                    keep_attended(
                        &mut d_scores,
                        &bits,
                        comptime!(step * STEP),
                        STEP,
                        tiles,
                        parts,
                    );
                }
                accumulate::<E, N>(
                    &mut key_sums,
                    &d_scores,
                    &queries,
                    first,
                    STEP,
                    head_dim,
                    parts,
                );
            }
        }
        gradients.finish(&moved, other, rows, fast);
        visit.set(next.any, next.all, next.head, &next.distances());
        cursor.describe(&mut next, index, &span, &keys_reach, &place, tile, visited);
        slot = other;
        at = next_at;
    }
    // What is owned has been read, and is written next.
    arrive(fast);

    if comptime!(config.keys) {
        scale_rows(&mut key_sums, &keys, key_tiles, parts, scale);
        owned.put_sums(&key_sums, key_tiles, parts);
    }
    if comptime!(config.values) {
        scale_rows(&mut value_sums, &keys, value_tiles, parts, f32::new(1.0));
        values.put_sums(&value_sums, value_tiles, parts);
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
