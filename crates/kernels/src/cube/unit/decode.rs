//! Decode: a cube owns some rows of queries of a key/value head and visits a part of its pages.

use cubecl::prelude::*;

use super::mask::pair_bit;
use super::rows::{first_across, owned_row, staged_row, visited_row};
use super::scratch::scratch;
use super::size::{CubeSize, LANES};
use super::softmax::softmax;
use crate::cube::config::Config;
use crate::cube::decode::pages::{VisitedPages, visited_pages};
use crate::cube::decode::partials::{put_stats, record_at};
use crate::cube::decode::sizes::Sizes;
use crate::cube::decode::tile::{query_rows, visits, work};
use crate::cube::rows::head_rows;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::NONE;

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
    _minus_infinity: f32,
    token_step: u32,
    head_step: u32,
    q_step: u32,
    sizes: Sizes,
    tiles: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile_rows, visited, size) = comptime!((config.owned.rows, config.visited, config.unit));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (rows, held) = comptime!((size.rows(), size.held(value_dim)));

    let work = work(table, &sizes);
    let queries = query_rows(token_step, head_step, q_step);
    let k_rows = head_rows::<E, N>(k, 0usize, 0usize, 0i32.runtime());
    let v_rows = head_rows::<E, N>(v, 0usize, 0usize, 0i32.runtime());
    let mut scratch = scratch::<N>(size, comptime!([head_dim, value_dim]), 1usize);
    let mut pages = visited_pages(tile_rows, visited, 1usize);
    pages.own(&work.rows, work.tile * comptime!(tile_rows as u32), index);
    let kv_len = work.rows.item.kv_len;
    let visits = visits(&work.part, table, kv_len, visited);

    let mut tile = work.tile;
    while visits > 0 && tile * comptime!(tile_rows as u32) < work.rows.count() {
        let first = tile * comptime!(tile_rows as u32);
        let mut limits = Array::<i32>::new(rows);
        #[unroll]
        for i in 0..rows {
            let row = work.rows.row(first + owned_row(i, size));
            limits[i] = work.rows.position(&row);
        }
        let staged = comptime!(size.staged(size.owned, head_dim));
        let mut tokens = Array::<i32>::new(staged);
        #[unroll]
        for n in 0..staged {
            let row = staged_row(n, comptime!(size.slice(head_dim)), size);
            tokens[n] = queries.token(&work.rows, &work.rows.row(first + row));
        }
        let mut softmax = softmax::<N>(value_dim, size);
        // What earlier rows staged has been read.
        sync_cube();
        scratch.own::<E>(0usize, q, &queries.rows, &tokens);
        for visit in 0..visits {
            sync_cube();
            pages.look_up(&work.part, table, index, kv_len, visit, 0u32);
            if UNIT_POS < comptime!(visited.rows as u32) {
                scratch.tokens[UNIT_POS as usize] = pages.tokens[UNIT_POS as usize];
            }
            sync_cube();
            scratch.visit::<E>(0usize, k, &k_rows);
            scratch.visit::<E>(1usize, v, &v_rows);
            scratch.staged();
            let mut weights = scratch.products::<E>(0usize, q, &queries.rows, &tokens, k, &k_rows);
            let bits = attended(&pages, &limits, size);
            softmax.weigh(&mut weights, bits, scale, &mut scratch);
            if comptime!(!size.whole) {
                sync_cube();
            }
            scratch.put_weights(&weights);
            scratch.accumulate::<E>(&mut softmax.values, 1usize, v, &v_rows);
        }

        scratch.row_sum(&mut softmax.sums);
        #[unroll]
        for i in 0..rows {
            let row = work.rows.row(first + owned_row(i, size));
            if row.exists {
                let at = record_at(&sizes, work.split, &work.rows, &row, value_dim);
                #[unroll]
                for u in 0..held {
                    let column = UNIT_POS as usize % size.across + comptime!(u * size.across);
                    if column < comptime!(value_dim / LANES) {
                        let value = softmax.values[i * held + u];
                        #[unroll]
                        for lane in 0..LANES {
                            partials[at + column * LANES + lane] = value.extract(lane);
                        }
                    }
                }
                if first_across(size) {
                    let (maximum, sum) = (softmax.maxima[i], softmax.sums[i]);
                    put_stats(partials, at, maximum, sum, sum, value_dim);
                }
            }
        }
        tile += tiles;
        pages.own(&work.rows, tile * comptime!(tile_rows as u32), index);
    }
}

/// The bits of the pairs of this unit's rows, whose queries stand at `limits`.
#[cube]
fn attended(pages: &VisitedPages, limits: &Array<i32>, #[comptime] size: CubeSize) -> u32 {
    let columns = comptime!(size.columns());
    let mut bits = u32::new(0);
    #[unroll]
    for i in 0..comptime!(size.rows()) {
        let attended = pages.attended(0u32, owned_row(i, size), limits[i]);
        #[unroll]
        for j in 0..columns {
            let attends = attended.all || pages.attends(0u32, &attended, visited_row(j, size));
            bits |= pair_bit(attends && limits[i] != NONE, i, j, size);
        }
    }
    bits
}
