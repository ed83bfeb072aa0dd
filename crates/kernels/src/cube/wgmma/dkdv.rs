//! dK and dV: a cube owns a tile of keys of one class and visits the queries of all heads of the group.

use cubecl::prelude::*;

use super::instructions::{copies_done, sync_units};
use super::kept::{chunks_of_visit, keep, keeping, kept_chunks};
use super::products::{GROUP, begin_scores, begin_values, declare, products_done, take};
use super::queries::fill;
use super::ring::{VISIT, all_of, first_turn, is_visit, ring};
use super::size::{FILLERS, ROWS, TURN_FILLERS, consumers, units};
use super::split::{cube_work, put_partial};
use super::tiles::tiles;
use super::visited_rows::visited_rows;
use super::work::{WORKING, attending_pairs, first_row, own_tokens_of, share_registers};
use crate::cube::config::Config;
use crate::cube::index::KEY_TILES;
use crate::cube::mma::fragments::{Pair, rounded, scale_rows, zeros};
use crate::cube::mma::keys::{Group, key_tokens};
use crate::cube::mma::mask::keep_attended;
use crate::cube::mma::products::Products;
use crate::cube::mma::stage::{chunks, padded};
use crate::cube::mma::weight::weight;
use crate::cube::place::place;
use crate::cube::rows::{HeadRows, head_keys};
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{heads_at, key_tile, span};

/// `dV = sum over queries of P dO` and `dK = scale * sum over queries of dS q`, where `config` wants them.
///
/// `d_keys` has the strides of dK; the rows of dV begin at vector `dv_at` and have the strides `dv_sequence`, `dv_head` and
/// `dv_token`, in vectors. Grid: key tiles of all sequences and heads, by class; where `config` splits, the first `split_tiles` of them are
/// `cubes` cubes each, which leave their sums in `partial`.
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
    kept: &mut [Vector<u32, Const<4>>],
    starts: &[u32],
    tiles_of_head: u32,
    first_visit: u32,
    first_kv_head: u32,
    kv_heads_now: u32,
    partial: &mut [Pair<f32>],
    split_tiles: u32,
    cubes: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile, visited) = comptime!((config.owned, config.visited));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (units, working) = comptime!((units(tile.rows), consumers(tile.rows)));
    // Of those that are wanted.
    let dk_dim = comptime!(if config.keys { head_dim } else { 0 });
    let dv_dim = comptime!(if config.values { value_dim } else { 0 });
    let sums = comptime!((dk_dim + dv_dim) / 2);
    let widest_product = comptime!(padded(dk_dim.max(dv_dim)));
    let (columns, brain) = comptime!((visited.rows / 8, config.brain));
    let factor = scale * f32::new(core::f32::consts::LOG2_E);

    let work = cube_work(CUBE_POS as u32, split_tiles, cubes, config.splits);
    let kv_head = (first_kv_head + work.tile % kv_heads_now) as usize;
    let place = place(index, work.tile / kv_heads_now, KEY_TILES);
    let span = span(index, place.sequence);
    let heads_at = heads_at(index);
    let groups_at = heads_at + heads as usize;
    let own = key_tile(index, groups_at, kv_head, place.number, &span, tile);
    let first_head = kv_head * (heads / kv_heads) as usize;
    let group = Group {
        heads: (heads / kv_heads) as i32,
        records: heads_at + first_head,
        stats: (span.item * heads as usize + first_head) * seq_q as usize,
        head_rows: seq_q as usize,
        all_rows: (batch * heads * seq_q) as usize,
    };
    let mut owned = tiles::<E, N>(1usize, tile.rows, head_dim, head_dim);
    let mut values = tiles::<E, N>(1usize, tile.rows, value_dim, value_dim);
    let queries = tiles::<E, N>(config.slots, visited.rows, head_dim, head_dim);
    let gradients = tiles::<E, N>(config.slots, visited.rows, value_dim, value_dim);
    let mut rows = visited_rows(config.slots, visited.rows);
    let keeps = comptime!(config.kept_bands > 0 && config.keys);
    let chunks_of_visit = comptime!(if keeps { chunks_of_visit(tile.rows) } else { 0 });
    let mut ring = ring(
        config.slots,
        1usize,
        comptime!(VISIT + chunks_of_visit),
        tile.rows,
        TURN_FILLERS,
    );
    let own_tokens = key_tokens(&own, index, span.kv_start, span.kv_rows_end, tile, units);
    sync_cube();
    if UNIT_POS < comptime!(FILLERS as u32) {
        share_registers(false, tile.rows, sums, widest_product);
        let mut keeping = keeping(
            &own,
            index,
            starts,
            place.sequence,
            &span,
            tiles_of_head,
            first_visit,
            comptime!(if keeps { config.kept_bands } else { 0 }),
            tile,
        );
        fill::<E, N>(
            &mut ring,
            &own,
            index,
            &group,
            &span,
            first_head,
            q,
            &queries,
            d_out,
            &gradients,
            stats,
            &mut rows,
            infinity,
            &mut keeping,
            starts,
            &work,
            config.splits,
            tile,
            visited,
        );
    } else {
        share_registers(true, tile.rows, sums, widest_product);
        let unit = (UNIT_POS - comptime!(FILLERS as u32)) as usize;
        let k_rows = head_keys::<E, N>(k, &span, kv_head);
        let v_rows = head_keys::<E, N>(v, &span, kv_head);
        owned.copy(
            0u32.runtime(),
            k,
            &k_rows,
            &own_tokens,
            0usize.runtime(),
            span.kv_end,
            unit,
            working,
        );
        values.copy(
            0u32.runtime(),
            v,
            &v_rows,
            &own_tokens,
            0usize.runtime(),
            span.kv_end,
            unit,
            working,
        );
        let row = first_row(unit);
        let keys = own_tokens_of(&own_tokens, row, span.kv_end);
        copies_done();
        sync_units(WORKING, working);

        let own_group = plane_broadcast((unit / GROUP) as u32, 0u32);
        let at = own_group * comptime!(ROWS as u32);
        declare("s", visited.rows);
        declare("t", visited.rows);
        declare("dk", comptime!(padded(head_dim)));
        declare("dv", comptime!(padded(value_dim)));
        let mut turn = first_turn();
        let mut visit = ring.wait_for_bits(&turn);
        if is_visit(visit) {
            let only = 0u32.runtime();
            begin_scores::<E, N>("s", &owned, only, at, &queries, turn.slot, brain);
            while is_visit(visit) {
                let all = all_of(visit, own_group);
                // Looked up before there are products in all of a unit's registers.
                let mut bits = Array::<u32>::new(1usize);
                bits[0usize] = u32::MAX.runtime();
                if !all {
                    let record = usize::cast_from(index[group.records + ring.head(&turn) as usize]);
                    let of_visit = attending_pairs(
                        &ring,
                        &turn,
                        visit,
                        own_group,
                        index,
                        record,
                        &keys,
                        &rows.tokens.of_rows,
                        false,
                        tile,
                        visited,
                    );
                    bits[0usize] = of_visit[0usize];
                }
                // Before the next products are begun, which takes until these are there.
                let lse = rows.lse(turn.slot);
                let next = turn.next(ring.slots);
                let next_visit = ring.wait_for_bits(&next);
                if comptime!(config.keys) {
                    begin_scores::<E, N>("t", &values, only, at, &gradients, turn.slot, brain);
                }
                products_done(comptime!(if config.keys { 1usize } else { 0usize }));
                let mut weights = take("s", visited.rows);
                #[unroll]
                for n in 0..comptime!(2 * columns) {
                    let mut pair = weights[n];
                    #[unroll]
                    for e in 0..2usize {
                        let lse = lse[comptime!(n / 2)].extract(e);
                        pair.insert(e, weight(fma(pair.extract(e), factor, -lse), true));
                    }
                    weights[n] = pair;
                }
                if !all {
                    keep_attended(&mut weights, &bits, f32::new(0.0), columns, 1usize);
                }
                let mut d_scores = zeros(columns);
                if comptime!(config.keys) {
                    let d = rows.d(turn.slot);
                    products_done(0usize);
                    let gradients_of = take("t", visited.rows);
                    #[unroll]
                    for n in 0..comptime!(2 * columns) {
                        d_scores[n] = (gradients_of[n] - d[comptime!(n / 2)]) * weights[n];
                    }
                    if !all {
                        keep_attended(&mut d_scores, &bits, f32::new(0.0), columns, 1usize);
                    }
                }
                let rounded_d_scores = rounded::<E>(&d_scores, columns);
                let chunks = kept_chunks(&ring, &turn, unit, keeps);
                if comptime!(config.values) {
                    let weights = rounded::<E>(&weights, columns);
                    begin_values::<E, N>("dv", &weights, &gradients, turn.slot, brain);
                }
                if comptime!(config.keys) {
                    begin_values::<E, N>("dk", &rounded_d_scores, &queries, turn.slot, brain);
                }
                if keeps {
                    keep::<E>(kept, &rounded_d_scores, &chunks, unit);
                }
                if is_visit(next_visit) {
                    // The next scores are computed while these weights are multiplied.
                    begin_scores::<E, N>("s", &owned, only, at, &queries, next.slot, brain);
                    products_done(1usize);
                    ring.done(&turn);
                }
                turn = next;
                visit = next_visit;
            }
            products_done(0usize);
        }

        if comptime!(config.splits).runtime() && work.cubes > 1u32 {
            if comptime!(config.keys) {
                let sums = take("dk", comptime!(padded(head_dim)));
                put_partial(
                    partial,
                    &work,
                    &sums,
                    unit,
                    comptime!(padded(head_dim) / 8),
                    0usize,
                    config,
                );
            }
            if comptime!(config.values) {
                let sums = take("dv", comptime!(padded(value_dim)));
                put_partial(
                    partial,
                    &work,
                    &sums,
                    unit,
                    comptime!(padded(value_dim) / 8),
                    comptime!(padded(dk_dim)),
                    config,
                );
            }
        } else {
            // All have read what is owned, and it is written next.
            sync_units(WORKING, working);
            if comptime!(config.keys) {
                let mut sums = take("dk", comptime!(padded(head_dim)));
                scale_rows(
                    &mut sums,
                    &keys,
                    comptime!(chunks(head_dim)),
                    1usize,
                    Products::Mma,
                    scale,
                );
                owned.put_sums(0u32.runtime(), &sums, row, comptime!(chunks(head_dim)));
            }
            if comptime!(config.values) {
                let mut sums = take("dv", comptime!(padded(value_dim)));
                scale_rows(
                    &mut sums,
                    &keys,
                    comptime!(chunks(value_dim)),
                    1usize,
                    Products::Mma,
                    f32::new(1.0),
                );
                values.put_sums(0u32.runtime(), &sums, row, comptime!(chunks(value_dim)));
            }
            sync_units(WORKING, working);
            if comptime!(config.keys) {
                let dk_rows = head_keys::<E, N>(&*d_keys, &span, kv_head);
                owned.store(
                    0u32.runtime(),
                    d_keys,
                    &dk_rows,
                    &own_tokens,
                    0usize.runtime(),
                    0usize.runtime(),
                    unit,
                    working,
                    tile.rows,
                    head_dim,
                );
            }
            if comptime!(config.values) {
                let dv_rows = HeadRows {
                    base: dv_at + span.item * dv_sequence + kv_head * dv_head,
                    stride: dv_token,
                    start: span.kv_zero,
                };
                values.store(
                    0u32.runtime(),
                    d_keys,
                    &dv_rows,
                    &own_tokens,
                    0usize.runtime(),
                    0usize.runtime(),
                    unit,
                    working,
                    tile.rows,
                    value_dim,
                );
            }
        }
    }
}
