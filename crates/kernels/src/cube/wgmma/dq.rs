//! dQ: a cube owns a tile of queries and visits the keys of their blocks.

use cubecl::prelude::*;

use super::instructions::{copies_done, sync_units};
use super::keys::fill;
use super::products::{GROUP, begin_scores, begin_values, declare, products_done, take};
use super::ring::{VISIT, all_of, first_turn, is_visit, ring};
use super::size::{FILLERS, ROWS, consumers, units};
use super::tiles::tiles;
use super::work::{WORKING, attending_pairs, first_row, own_tokens_of, share_registers};
use crate::cube::config::Config;
use crate::cube::mma::fragments::{rounded, scale_rows, zeros};
use crate::cube::mma::mask::keep_attended;
use crate::cube::mma::products::Products;
use crate::cube::mma::queries::own_tokens;
use crate::cube::mma::stage::{chunks, padded};
use crate::cube::mma::weight::weight;
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
    let (tile, visited) = comptime!((config.owned, config.visited));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (units, working) = comptime!((units(tile.rows), consumers(tile.rows)));
    let sums = comptime!(head_dim / 2);
    let widest_product = comptime!(padded(head_dim));
    let (columns, brain) = comptime!((visited.rows / 8, config.brain));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = scale * log2_e;

    let own = query_tile(index, CUBE_POS as u32, heads, kv_heads, tile);
    let span = own.span;
    let mut owned = tiles::<E, N>(1usize, tile.rows, head_dim, head_dim);
    let gradients = tiles::<E, N>(1usize, tile.rows, value_dim, value_dim);
    let keys = tiles::<E, N>(config.slots, visited.rows, head_dim, head_dim);
    let values = tiles::<E, N>(config.slots, visited.rows, value_dim, value_dim);
    let mut tokens = Shared::<[i32]>::new_slice(comptime!(config.slots * visited.rows));
    let mut ring = ring(config.slots, 1usize, VISIT, tile.rows, FILLERS);
    let own_tokens = own_tokens(&own, index, tile, units);
    sync_cube();
    if UNIT_POS < comptime!(FILLERS as u32) {
        share_registers(false, tile.rows, sums, widest_product);
        let k_rows = head_keys::<E, N>(k, &span, own.kv_head);
        let v_rows = head_keys::<E, N>(v, &span, own.kv_head);
        let _ = fill::<E, N>(
            &mut ring,
            &own,
            index,
            k,
            &k_rows,
            &keys,
            v,
            &v_rows,
            &values,
            &mut tokens,
            first_turn(),
            tile,
            visited,
        );
    } else {
        share_registers(true, tile.rows, sums, widest_product);
        let unit = (UNIT_POS - comptime!(FILLERS as u32)) as usize;
        let q_rows = head_queries::<E, N>(q, &span, own.head);
        let d_rows = head_queries::<E, N>(d_out, &span, own.head);
        owned.copy(
            0u32.runtime(),
            q,
            &q_rows,
            &own_tokens,
            0usize.runtime(),
            span.q_end,
            unit,
            working,
        );
        gradients.copy(
            0u32.runtime(),
            d_out,
            &d_rows,
            &own_tokens,
            0usize.runtime(),
            span.q_end,
            unit,
            working,
        );

        let row = first_row(unit);
        let queries = own_tokens_of(&own_tokens, row, span.q_end);
        let mut lse = Array::<f32>::new(2usize);
        let mut d = Array::<f32>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            lse[half] = f32::new(0.0);
            d[half] = f32::new(0.0);
            if queries[half] != NONE {
                let row = (span.item * heads as usize + own.head) * seq_q as usize
                    + usize::cast_from(queries[half] - span.q_zero);
                let of_row = stats_at(stats, row, (batch * heads * seq_q) as usize);
                lse[half] = of_row.lse * log2_e;
                d[half] = of_row.d;
            }
        }
        copies_done();
        sync_units(WORKING, working);

        // The same for all units of a plane, which the compiler does not see otherwise.
        let group = plane_broadcast((unit / GROUP) as u32, 0u32);
        let group_rows = group * comptime!(ROWS as u32);
        declare("s", visited.rows);
        declare("t", visited.rows);
        declare("dq", comptime!(padded(head_dim)));
        let mut turn = first_turn();
        let mut visit = ring.wait_for_bits(&turn);
        if is_visit(visit) {
            let mut d_scores = zeros(columns);
            begin_scores::<E, N>(
                "s",
                &owned,
                0u32.runtime(),
                group_rows,
                &keys,
                turn.slot,
                brain,
            );
            begin_scores::<E, N>(
                "t",
                &gradients,
                0u32.runtime(),
                group_rows,
                &values,
                turn.slot,
                brain,
            );
            while is_visit(visit) {
                // The products take until the next visit is there.
                let next = turn.next(ring.slots);
                let next_visit = ring.wait_for_bits(&next);
                products_done(1usize);
                let products = take("s", visited.rows);
                let mut weights = zeros(columns);
                #[unroll]
                for n in 0..comptime!(2 * columns) {
                    let mut pair = products[n];
                    #[unroll]
                    for e in 0..2usize {
                        let power = fma(pair.extract(e), factor, -lse[comptime!(n % 2)]);
                        pair.insert(e, weight(power, true));
                    }
                    weights[n] = pair;
                }
                // Between weights and what waits for other products, which the assembler would else place before them.
                let all = all_of(visit, group);
                let mut bits = Array::<u32>::new(1usize);
                bits[0usize] = u32::MAX.runtime();
                if !all {
                    let of_visit = attending_pairs(
                        &ring,
                        &turn,
                        visit,
                        group,
                        index,
                        own.walk.record,
                        &queries,
                        &tokens,
                        true,
                        tile,
                        visited,
                    );
                    bits[0usize] = of_visit[0usize];
                }
                products_done(0usize);
                let gradients_of = take("t", visited.rows);
                #[unroll]
                for n in 0..comptime!(2 * columns) {
                    let mut pair = gradients_of[n] - Vector::new(d[comptime!(n % 2)]);
                    pair *= weights[n];
                    d_scores[n] = pair;
                }
                if !all {
                    keep_attended(&mut d_scores, &bits, f32::new(0.0), columns, 1usize);
                }
                let rounded = rounded::<E>(&d_scores, columns);
                begin_values::<E, N>("dq", &rounded, &keys, turn.slot, brain);
                if is_visit(next_visit) {
                    // The next scores are computed while these weights are multiplied.
                    begin_scores::<E, N>(
                        "s",
                        &owned,
                        0u32.runtime(),
                        group_rows,
                        &keys,
                        next.slot,
                        brain,
                    );
                    products_done(1usize);
                    ring.done(&turn);
                    begin_scores::<E, N>(
                        "t",
                        &gradients,
                        0u32.runtime(),
                        group_rows,
                        &values,
                        next.slot,
                        brain,
                    );
                }
                turn = next;
                visit = next_visit;
            }
            products_done(0usize);
        }

        // Of queries that attend nothing too: keys that others of the tile attend may be infinite, and 0 times that is not 0.
        let mut attending = Array::<i32>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            attending[half] = select(lse[half] < f32::MIN, NONE, queries[half]);
        }
        let mut sums = take("dq", comptime!(padded(head_dim)));
        scale_rows(
            &mut sums,
            &attending,
            comptime!(chunks(head_dim)),
            1usize,
            Products::Mma,
            scale,
        );
        // All have read what is owned, and it is written next.
        sync_units(WORKING, working);
        owned.put_sums(0u32.runtime(), &sums, row, comptime!(chunks(head_dim)));
        sync_units(WORKING, working);
        let dq_rows = head_queries::<E, N>(&*dq, &span, own.head);
        owned.store(
            0u32.runtime(),
            dq,
            &dq_rows,
            &own_tokens,
            0usize.runtime(),
            0usize.runtime(),
            unit,
            working,
            tile.rows,
            head_dim,
        );
    }
}
