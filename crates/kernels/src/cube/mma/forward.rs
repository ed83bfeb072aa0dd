//! Forward: a cube owns a tile of queries and visits the keys of their blocks with an online softmax.

use cubecl::prelude::*;

use super::fragments::{Pair, scores, zeros};
use super::mask::{attended, keep_attended, own_rows};
use super::products::{Products, is_first};
use super::queries::{VisitedKeys, own_tokens, visited_keys};
use super::size::units;
use super::softmax::softmax;
use super::stage::{arrive, chunks, stage};
use crate::cube::config::Config;
use crate::cube::rows::{head_keys, head_queries};
use crate::cube::softmax::LEAST_SCALE;
use crate::cube::tile::Tile;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, QueryTile, query_tile};

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
    let (tile, visited, units) = comptime!((
        config.owned,
        config.visited,
        units(config.owned.rows, config.parts)
    ));
    let (head_dim, value_dim) = comptime!((config.head_dim, config.value_dim));
    let (parts, fast, products) = comptime!((config.parts, config.instructions, config.products));
    let (half, tiles, value_tiles) =
        comptime!((visited.rows / 2, visited.rows / 16, chunks(value_dim)));
    let log2_e = f32::new(core::f32::consts::LOG2_E);
    let factor = max(scale.abs() * log2_e, f32::new(LEAST_SCALE));

    let own = query_tile(index, CUBE_POS as u32, heads, kv_heads, tile);
    let span = own.span;
    let q_rows = head_queries::<E, N>(q, &span, own.head);
    let k_rows = head_keys::<E, N>(k, &span, own.kv_head);
    let v_rows = head_keys::<E, N>(v, &span, own.kv_head);

    let mut owned = stage::<E, N>(
        tile.rows,
        comptime!(head_dim.max(value_dim)),
        units,
        fast,
        products,
    );
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
    keys.fill(k, &k_rows, &visits.tokens, end, rows, head_dim);
    values.fill(v, &v_rows, &visits.tokens, end, rows, value_dim);

    let queries = own_rows(&own_tokens, span.q_end, parts, products);
    let mut softmax = softmax(factor, parts, value_dim, config.rounding, fast, products);
    if scale < 0.0f32 {
        arrive(fast);
        owned.negate();
    }
    while visits.at.visit.any {
        arrive(fast);
        // The next rows are on their way while these are used, and the tokens of those after them are looked up.
        let (slot, other) = (visits.at.slot, visits.at.next_slot());
        let next = visits.at.next_tokens();
        let tokens = &visits.tokens;
        let moved = keys.begin(k, &k_rows, tokens, next, end, other, rows, head_dim);
        visits.look_ahead(&own, index);

        // Half of the rows at a time: products of one half are computed while weights of the other are.
        let mut early = scores::<E, N>(&owned, &keys, slot, tiles, head_dim, parts);
        mask(
            &mut early,
            &visits,
            index,
            &own,
            &queries,
            0usize,
            minus_infinity,
            tiles,
            parts,
            tile,
            products,
        );
        let mut none = zeros(0usize);
        softmax.raise(&early, &mut none, minus_infinity, tiles, 0usize);
        let mut late = scores::<E, N>(&owned, &keys, slot + half, tiles, head_dim, parts);
        softmax.weigh(&mut early, tiles);
        keys.finish(&moved, other, rows);
        let tokens = &visits.tokens;
        let moved = values.begin(v, &v_rows, tokens, next, end, other, rows, value_dim);
        mask(
            &mut late,
            &visits,
            index,
            &own,
            &queries,
            half,
            minus_infinity,
            tiles,
            parts,
            tile,
            products,
        );
        softmax.raise(&late, &mut early, minus_infinity, tiles, tiles);
        softmax.add::<E, N>(&mut early, &values, slot, tiles);
        softmax.weigh(&mut late, tiles);
        softmax.add::<E, N>(&mut late, &values, slot + half, tiles);
        values.finish(&moved, other, rows);
        visits.turn(&own, index);
    }
    // What is owned has been read, and is written next.
    arrive(fast);

    let tokens = own_rows(&own_tokens, own.rows.end, parts, products);
    #[unroll]
    for row in 0..comptime!(products.rows(parts)) {
        let of_row = softmax.finish(row, queries[row] == NONE, minus_infinity);
        if tokens[row] != NONE && is_first(products) {
            let at = (span.item * heads as usize + own.head) * seq_q as usize
                + usize::cast_from(tokens[row] - span.q_zero);
            lse[at] = of_row;
        }
    }
    let out_rows = head_queries::<E, N>(&*out, &span, own.head);
    owned.put_sums(&softmax.results, value_tiles, parts);
    sync_cube();
    owned.store(out, &out_rows, &own_tokens, value_dim);
    if comptime!(config.rounding) {
        #[unroll]
        for n in 0..comptime!(2 * parts * value_tiles) {
            let rounded = Vector::<E, Const<2>>::cast_from(softmax.results[n]);
            softmax.results[n] -= Vector::cast_from(rounded);
        }
        sync_cube();
        owned.put_sums(&softmax.results, value_tiles, parts);
        sync_cube();
        let rows = head_queries::<E, N>(&*rounding, &span, own.head);
        owned.store(rounding, &rows, &own_tokens, value_dim);
    }
}

/// Makes scores minus infinity that do not attend: those of the visited rows from `first` on.
#[cube]
#[allow(clippy::too_many_arguments)]
fn mask(
    scores: &mut Array<Pair<f32>>,
    visits: &VisitedKeys,
    index: &[i32],
    own: &QueryTile,
    queries: &Array<i32>,
    first: usize,
    minus_infinity: f32,
    #[comptime] tiles: usize,
    #[comptime] parts: usize,
    #[comptime] tile: Tile,
    #[comptime] products: Products,
) {
    if !visits.at.visit.all {
        let bits = attended(
            &visits.at.visit.distances,
            index,
            own.walk.record,
            queries,
            &visits.tokens,
            visits.at.tokens + first,
            tiles,
            parts,
            true,
            tile,
            products,
        );
        keep_attended(scores, &bits, minus_infinity, tiles, parts);
    }
}
