//! dQ where dK and dV have kept dS: a cube owns a tile of queries, and its ring brings keys and the dS of them.

use cubecl::prelude::*;

use super::groups::NOTHING;
use super::instructions::{copy_all, sync_units, transposed};
use super::kept::{ACROSS, first_visit};
use super::keys::{fill_with_keys, key_visits};
use super::products::{GROUP, begin_values, declare, products_done, take};
use super::ring::{VISIT, all_of, first_turn, is_visit, nothing_of, ring};
use super::size::{FILLERS, ROWS, VISITED, consumers, units};
use super::tiles::tiles;
use super::work::{WORKING, attending_pairs, first_row, own_tokens_of, share_registers};
use crate::cube::config::Config;
use crate::cube::mma::fragments::{Pair, rounded, scale_rows, zeros};
use crate::cube::mma::intrinsics::shared_address;
use crate::cube::mma::mask::keep_attended;
use crate::cube::mma::products::Products;
use crate::cube::mma::queries::own_tokens;
use crate::cube::mma::stage::{chunks, padded};
use crate::cube::rows::{head_keys, head_queries};
use crate::cube::stats::stats_at;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, query_reach, query_tile};

/// 16 bytes of dS: those that a unit holds of a chunk.
type Words = Vector<u32, Const<4>>;

/// Words of a group, of a visit.
const OF_GROUP: usize = ROWS * VISITED * 2 / 16;

/// `dQ = scale * sum over keys of dS k`, of the query heads from `first_head` on, `heads_now` of them.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn dq_kept<E: Float, N: Size>(
    k: &VectorTensor<E, N>,
    kept: &[Vector<u32, Const<4>>],
    starts: &[u32],
    stats: &[f32],
    dq: &mut VectorTensor<E, N>,
    index: &[i32],
    scale: f32,
    batch: u32,
    heads: u32,
    kv_heads: u32,
    seq_q: u32,
    tiles_of_head: u32,
    first_kept: u32,
    first_head: u32,
    heads_now: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let (tile, visited) = comptime!((config.owned, config.visited));
    let head_dim = comptime!(config.head_dim);
    let (units, working) = comptime!((units(tile.rows), consumers(tile.rows)));
    let sums = comptime!(head_dim / 2);
    let (columns, brain) = comptime!((visited.rows / 8, config.brain));
    let groups = comptime!(tile.rows / ROWS);

    let cube = CUBE_POS as u32;
    let number = cube / heads_now * heads + first_head + cube % heads_now;
    let own = query_tile(index, number, heads, kv_heads, tile);
    let span = own.span;
    let mut keys = tiles::<E, N>(config.slots, visited.rows, head_dim, head_dim);
    let scores =
        Shared::<[Words]>::new_aligned_slice(comptime!(config.slots * groups * OF_GROUP), 128usize);
    let mut tokens = Shared::<[i32]>::new_slice(comptime!(config.slots * visited.rows));
    let mut ring = ring(config.slots, 1usize, VISIT, tile.rows, FILLERS);
    let own_tokens = own_tokens(&own, index, tile, units);
    sync_cube();
    if UNIT_POS < comptime!(FILLERS as u32) {
        share_registers(false, tile.rows, sums, comptime!(padded(head_dim)));
        let k_rows = head_keys::<E, N>(k, &span, own.kv_head);
        let to = shared_address(&scores[0usize..1usize]);
        let queries = query_reach(&own, tile);
        let mut visit = 0u32.runtime();
        if own.walk.bands > 0 {
            let position = own.rows.blocks.first * comptime!(tile.block as i32) + own.rows.offset;
            visit = first_visit(
                starts,
                index,
                own.sequence,
                tiles_of_head,
                own.head,
                &span,
                max(position, span.q_start),
                config.kept_bands,
                tile,
            ) - first_kept;
        }
        let mut visits = key_visits(&own, index, &queries, tile, visited);
        let mut turn = first_turn();
        let mut more = true;
        while more {
            let filled = fill_with_keys::<E, N>(
                &mut ring,
                &mut visits,
                &own,
                index,
                &queries,
                k,
                &k_rows,
                &keys,
                &mut tokens,
                &turn,
                tile,
                visited,
            );
            more = is_visit(filled.bits);
            if more {
                let from = visit as usize * comptime!(groups * OF_GROUP) + UNIT_POS as usize;
                let to =
                    to + turn.slot * comptime!((groups * OF_GROUP * 16) as u32) + UNIT_POS * 16u32;
                #[unroll]
                for group in 0..groups {
                    if filled.bits & comptime!(NOTHING << group) == 0u32 {
                        #[unroll]
                        for n in 0..comptime!(OF_GROUP / FILLERS) {
                            let further = comptime!(group * OF_GROUP + n * FILLERS);
                            let from = from + further;
                            copy_all(
                                &kept[from..from + 1usize],
                                0usize,
                                to,
                                comptime!(further * 16),
                            );
                        }
                    }
                }
                visit += 1u32;
            }
            ring.fill(&turn);
            turn = turn.next(ring.slots);
        }
    } else {
        share_registers(true, tile.rows, sums, comptime!(padded(head_dim)));
        let unit = (UNIT_POS - comptime!(FILLERS as u32)) as usize;
        let row = first_row(unit);
        let queries = own_tokens_of(&own_tokens, row, span.q_end);
        // Of queries that attend nothing too: keys that others of the tile attend may be infinite, and 0 times that is not 0.
        let mut attending = Array::<i32>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            attending[half] = queries[half];
            if queries[half] != NONE {
                let row = (span.item * heads as usize + own.head) * seq_q as usize
                    + usize::cast_from(queries[half] - span.q_zero);
                let of_row = stats_at(stats, row, (batch * heads * seq_q) as usize);
                attending[half] = select(of_row.lse < f32::MIN, NONE, queries[half]);
            }
        }

        // The same for all units of a plane, which the compiler does not see otherwise.
        let group = plane_broadcast((unit / GROUP) as u32, 0u32);
        declare("dq", comptime!(padded(head_dim)));
        let mut turn = first_turn();
        let mut visit = ring.wait_for_bits(&turn);
        while is_visit(visit) {
            let next = turn.next(ring.slots);
            let next_visit = if nothing_of(visit, group) {
                ring.wait_for_bits(&next)
            } else {
                let at = (turn.slot as usize * groups + group as usize) * OF_GROUP;
                let mut d_scores = kept_scores::<E>(&scores, at, unit % GROUP);
                if !all_of(visit, group) {
                    let bits = attending_pairs(
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
                    let mut of_visit = zeros(columns);
                    #[unroll]
                    for n in 0..comptime!(2 * columns) {
                        of_visit[n] = Vector::cast_from(d_scores[n]);
                    }
                    keep_attended(&mut of_visit, &bits, f32::new(0.0), columns, 1usize);
                    let of_visit = rounded::<E>(&of_visit, columns);
                    #[unroll]
                    for n in 0..comptime!(2 * columns) {
                        d_scores[n] = of_visit[n];
                    }
                }
                begin_values::<E, N>("dq", &d_scores, &keys, turn.slot, brain);
                // The product takes until the next visit is there.
                let next_visit = ring.wait_for_bits(&next);
                products_done(0usize);
                next_visit
            };
            ring.done(&turn);
            turn = next;
            visit = next_visit;
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
        // All have read their keys, in whose place results are put.
        sync_units(WORKING, working);
        let of_group = unit % GROUP;
        keys.put_sums(
            group,
            &sums,
            first_row(of_group),
            comptime!(chunks(head_dim)),
        );
        sync_units(WORKING, working);
        let dq_rows = head_queries::<E, N>(&*dq, &span, own.head);
        keys.store(
            group,
            dq,
            &dq_rows,
            &own_tokens,
            group as usize * ROWS,
            0usize.runtime(),
            of_group,
            GROUP,
            ROWS,
            head_dim,
        );
    }
}

/// The dS of this unit's queries of a group, from word `at` on, as a left operand: kept with keys for rows.
#[cube]
fn kept_scores<E: Float>(scores: &Shared<[Words]>, at: usize, unit: usize) -> Array<Pair<E>> {
    let mut left = Array::<Pair<E>>::new(comptime!(4 * ACROSS));
    #[unroll]
    for keys in 0..ACROSS {
        // Chunks of 16 keys and the queries of this plane.
        let chunk = comptime!(keys * ROWS / 16) + unit / 32usize;
        let words = scores[at + chunk * 32usize + unit % 32usize];
        // Of the four matrices of 8 x 8, those beside the diagonal change places.
        #[unroll]
        for r in 0..4usize {
            let from = comptime!([0usize, 2, 1, 3][r]);
            left[comptime!(4 * keys + r)] = Pair::<E>::reinterpret(transposed(words.extract(from)));
        }
    }
    left
}
