//! Decode: a cube owns some rows of queries of a key/value head and visits a part of its pages.

use cubecl::prelude::*;

use super::fragments::{Pair, scores, zeros};
use super::mask::{keep_attended, pair_bit};
use super::products::{Products, column, first_column, is_first, own_row};
use super::size::units;
use super::softmax::softmax;
use super::stage::{arrive, chunks, padded, stage};
use crate::cube::config::Config;
use crate::cube::decode::pages::{VisitedPages, visited_pages};
use crate::cube::decode::partials::{put_stats, record_at};
use crate::cube::decode::sizes::Sizes;
use crate::cube::decode::tile::{query_rows, visits, work};
use crate::cube::rows::head_rows;
use crate::cube::softmax::LEAST_SCALE;
use crate::cube::vector_tensor::VectorTensor;

/// Visits that are looked up: this one, the next, whose rows are on their way, and the one after it.
pub(in crate::cube) const PLACES: usize = 3;

/// The records of every row of an item over each part of its pages: `k` and `v` are pools.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn decode<E: Float, N: Size>(
    q: &VectorTensor<E, N>,
    k: &VectorTensor<E, N>,
    v: &VectorTensor<E, N>,
    partials: &mut [f32],
    table: &[i32],
    index: &[i32],
    scale: f32,
    minus_infinity: f32,
    token_step: u32,
    head_step: u32,
    q_step: u32,
    sizes: Sizes,
    tiles: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile_rows, visited) = comptime!((config.owned.rows, config.visited));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (fast, products) = comptime!((config.instructions, config.products));
    let (units, count) = comptime!((units(tile_rows, 1), visited.rows));
    let (score_tiles, value_tiles) = comptime!((visited.rows / 8, chunks(value_dim)));
    let own_rows = comptime!(products.rows(1));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = max(scale.abs() * log2_e, f32::new(LEAST_SCALE));
    // Rows that are not to be read have no token.
    let no_end = i32::MAX.runtime();

    let work = work(table, &sizes);
    let queries = query_rows(token_step, head_step, q_step);
    let k_rows = head_rows::<E, N>(k, 0usize, 0usize, 0i32.runtime());
    let v_rows = head_rows::<E, N>(v, 0usize, 0usize, 0i32.runtime());
    let mut owned = stage::<E, N>(tile_rows, head_dim, units, fast, products);
    // Two slots: those of this visit and those of the next.
    let mut keys = stage::<E, N>(comptime!(2 * count), head_dim, units, fast, products);
    let mut values = stage::<E, N>(comptime!(2 * count), value_dim, units, fast, products);
    let mut tokens = Shared::<[i32]>::new_slice(tile_rows);
    let mut pages = visited_pages(tile_rows, visited, PLACES);
    pages.own(&work.rows, work.tile * comptime!(tile_rows as u32), index);
    let kv_len = work.rows.item.kv_len;
    let visits = visits(&work.part, table, kv_len, visited);

    let mut tile = work.tile;
    while visits > 0 && tile * comptime!(tile_rows as u32) < work.rows.count() {
        let first = tile * comptime!(tile_rows as u32);
        if UNIT_POS < comptime!(tile_rows as u32) {
            let row = work.rows.row(first + UNIT_POS);
            tokens[UNIT_POS as usize] = queries.token(&work.rows, &row);
        }
        pages.look_up(&work.part, table, index, kv_len, 0i32, 0u32);
        sync_cube();
        keys.fill(k, &k_rows, &pages.tokens, no_end, count, head_dim);
        owned.fill(q, &queries.rows, &tokens, no_end, tile_rows, head_dim);
        values.fill(v, &v_rows, &pages.tokens, no_end, count, value_dim);
        let mut limits = Array::<i32>::new(own_rows);
        #[unroll]
        for row in 0..own_rows {
            let of = work.rows.row(first + own_row(row, 1usize, products));
            limits[row] = work.rows.position(&of);
        }
        pages.look_up(&work.part, table, index, kv_len, 1i32, 1u32);
        let mut softmax = softmax(factor, 1usize, value_dim, false, fast, products);
        if scale < 0.0f32 {
            arrive(fast);
            owned.negate();
        }

        let mut slot = 0usize.runtime();
        let mut place = 0u32.runtime();
        for visit in 0..visits {
            arrive(fast);
            // The next rows are on their way while these are used, and those after them are looked up.
            let other = count - slot;
            let next = after(place);
            let from = next as usize * count;
            let moved = keys.begin(
                k,
                &k_rows,
                &pages.tokens,
                from,
                no_end,
                other,
                count,
                head_dim,
            );
            if comptime!(fast) {
                values.begin(
                    v,
                    &v_rows,
                    &pages.tokens,
                    from,
                    no_end,
                    other,
                    count,
                    value_dim,
                );
            }
            let later = after(next);
            pages.look_up(&work.part, table, index, kv_len, visit + 2, later);

            let mut weights = scores::<E, N>(&owned, &keys, slot, score_tiles, head_dim, 1usize);
            keys.finish(&moved, other, count);
            mask(
                &mut weights,
                &pages,
                place,
                &limits,
                minus_infinity,
                score_tiles,
                products,
            );
            let mut none = zeros(0usize);
            softmax.raise(&weights, &mut none, minus_infinity, score_tiles, 0usize);
            softmax.weigh(&mut weights, score_tiles);
            if comptime!(fast) {
                softmax.add::<E, N>(&mut weights, &values, slot, score_tiles);
            } else {
                let moved = values.begin(
                    v,
                    &v_rows,
                    &pages.tokens,
                    from,
                    no_end,
                    other,
                    count,
                    value_dim,
                );
                softmax.add::<E, N>(&mut weights, &values, slot, score_tiles);
                values.finish(&moved, other, count);
            }
            slot = other;
            place = next;
        }
        // What is staged has been read, and nothing more is on its way.
        arrive(fast);

        #[unroll]
        for row in 0..own_rows {
            let of_row = softmax.row(row);
            let own = work.rows.row(first + own_row(row, 1usize, products));
            if own.exists {
                let at = record_at(&sizes, work.split, &work.rows, &own, value_dim);
                if is_first(products) {
                    put_stats(
                        partials,
                        at,
                        of_row.maximum,
                        of_row.sum,
                        of_row.whole,
                        value_dim,
                    );
                }
                #[unroll]
                for n in 0..comptime!(products.row_pairs(value_tiles)) {
                    let pair = comptime!(products.pair_of(row, n, value_tiles));
                    let column = first_column(products)
                        + comptime!(products.column_of(pair, 0, value_tiles));
                    if comptime!(padded(value_dim) == value_dim) || column < value_dim {
                        let sums = softmax.results[pair];
                        partials[at + column] = sums.extract(0usize);
                        partials[at + column + 1usize] = sums.extract(1usize);
                    }
                }
            }
        }
        tile += tiles;
        pages.own(&work.rows, tile * comptime!(tile_rows as u32), index);
    }
}

/// The place after one.
#[cube]
fn after(place: u32) -> u32 {
    select(place == comptime!(PLACES as u32 - 1), 0u32, place + 1u32)
}

/// Makes scores minus infinity that do not attend. `limits` are where the queries of this unit's rows stand.
#[cube]
fn mask(
    scores: &mut Array<Pair<f32>>,
    pages: &VisitedPages,
    place: u32,
    limits: &Array<i32>,
    minus_infinity: f32,
    #[comptime] tiles: usize,
    #[comptime] products: Products,
) {
    let (rows, elements) = comptime!((products.rows(1), 2 * products.row_pairs(tiles) as u32));
    let mut all = true.runtime();
    #[unroll]
    for row in 0..rows {
        let own = own_row(row, 1usize, products);
        all = all && pages.attended(place, own, limits[row]).all;
    }
    if !all {
        let mut bits = Array::<u32>::new(1usize);
        bits[0usize] = 0u32.runtime();
        #[unroll]
        for row in 0..rows {
            let own = own_row(row, 1usize, products);
            let attended = pages.attended(place, own, limits[row]);
            for n in 0..elements {
                let attends = pages.attends(place, &attended, column(n, products));
                bits[0usize] |= pair_bit(attends, n, row, products);
            }
        }
        keep_attended(scores, &bits, minus_infinity, tiles, 1usize);
    }
}
