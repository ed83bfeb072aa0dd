//! What a group does with a visit of the forward pass.

use cubecl::prelude::*;

use super::products::{begin_scores, begin_scores_of, products_done, scale, take};
use super::ring::{Ring, Turn, all_of, nothing_of};
use super::size::{ROWS, holds_queries, is_wide};
use super::softmax::{Raised, Softmax};
use super::tiles::Tiles;
use super::weights::Weights;
use super::work::mask;
use crate::cube::config::Config;
use crate::cube::mma::stage::padded;
use crate::cube::tile::Tile;

/// Sums of scores.
pub(super) const SCORES: &str = "s";
/// Sums of weighted values.
pub(super) const RESULTS: &str = "o";

/// Begins the scores of a visit, of the queries that units hold or of those in `slot`.
#[cube]
pub(super) fn begin_visit<E: Float, N: Size>(
    owned: &Tiles<E, N>,
    slot: u32,
    group: u32,
    held: &Array<Vector<u32, Const<4>>>,
    keys: &Tiles<E, N>,
    turn: &Turn,
    #[comptime] config: Config,
) {
    let brain = comptime!(config.brain);
    if comptime!(holds(config)) {
        begin_scores_of::<E, N>(SCORES, held, keys, turn.slot, brain);
    } else {
        let rows = group * comptime!(ROWS as u32);
        begin_scores::<E, N>(SCORES, owned, slot, rows, keys, turn.slot, brain);
    }
}

/// Whether units hold their queries.
pub(super) fn holds(config: Config) -> bool {
    holds_queries(
        config.owned.rows,
        [config.head_dim, config.value_dim],
        config.rounding,
    )
}

/// Whether groups ask for the next visit while they wait for products. Three groups, and wide heads, lose by it where slots are few, since
/// they wait for the next before they need it; heads of 64 gain nothing.
fn asks_early(config: Config) -> bool {
    config.owned.rows <= 2 * ROWS && !is_wide([config.head_dim, config.value_dim])
}

/// The bits of the visit after that of `turn`, where [`asks_early`].
#[cube]
pub(super) fn early_bits(ring: &Ring, turn: &Turn, #[comptime] config: Config) -> u32 {
    let mut bits = 0u32.runtime();
    if comptime!(asks_early(config)) {
        bits = ring.wait_for_bits(&turn.next(ring.slots));
    }
    bits
}

/// The bits of the visit of `turn`, of which [`early_bits`] said `next_bits`.
#[cube]
pub(super) fn bits_after(
    ring: &Ring,
    turn: &Turn,
    next_bits: u32,
    #[comptime] config: Config,
) -> u32 {
    let mut bits = next_bits;
    if comptime!(!asks_early(config)) {
        bits = ring.wait_for_bits(turn);
    }
    bits
}

/// A visit: the weights of the one `before` multiply values while those of this are computed.
///
/// Where all pairs of the group attend, without a look at the scores' maxima, which visits after the first seldom raise. Else, and where
/// one must be raised first, `false`: the weights of this are not there yet, and those of the one before are still multiplied.
///
/// With it the bits of the next visit, where [`asks_early`].
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn visit<E: Float, N: Size>(
    pending: &Weights<E>,
    of_turn: &mut Weights<E>,
    softmax: &mut Softmax,
    before: &Turn,
    turn: &Turn,
    bits: u32,
    ring: &Ring,
    group: u32,
    owned: &Tiles<E, N>,
    slot: u32,
    held: &Array<Vector<u32, Const<4>>>,
    keys: &Tiles<E, N>,
    values: &Tiles<E, N>,
    #[comptime] config: Config,
) -> (bool, u32) {
    begin_visit::<E, N>(owned, slot, group, held, keys, turn, config);
    ring.wait_for_values(before);
    pending.begin::<N>(RESULTS, values, before.slot, config.brain);
    let next_bits = early_bits(ring, turn, config);
    products_done(comptime!(if config.rounding { 2usize } else { 1usize }));
    let mut weighed = false;
    if all_of(bits, group) {
        let scores = take(SCORES, config.visited.rows);
        weighed = softmax.try_to_weigh::<E>(&scores, of_turn, comptime!(config.visited.rows / 8));
    }
    (weighed, next_bits)
}

/// Waits for products, once the weights of a visit are there: its keys are no longer needed, nor the slot of the one `before`.
#[cube]
pub(super) fn visited_by_group(ring: &Ring, before: &Turn, turn: &Turn) {
    ring.done_with_keys(turn);
    products_done(0usize);
    ring.done(before);
}

/// Scales results by what raised maxima leave of them.
#[cube]
pub(super) fn scale_raised(raised: &Raised, #[comptime] value_dim: usize) {
    if raised.any {
        #[unroll]
        for half in 0..2usize {
            scale(
                RESULTS,
                comptime!(padded(value_dim)),
                half,
                raised.kept[half],
            );
        }
    }
}

/// Makes the scores of any visit weights: of one that has these `bits`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn weigh<E: Float>(
    weights: &mut Weights<E>,
    raised: &mut Raised,
    softmax: &mut Softmax,
    ring: &Ring,
    turn: &Turn,
    bits: u32,
    group: u32,
    index: &[i32],
    head_record: usize,
    queries: &Array<i32>,
    tokens: &Shared<[i32]>,
    minus_infinity: f32,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    let tiles = comptime!(visited.rows / 8);
    if nothing_of(bits, group) {
        weights.clear(tiles);
    } else {
        let mut scores = take(SCORES, visited.rows);
        mask(
            &mut scores,
            ring,
            turn,
            bits,
            group,
            index,
            head_record,
            queries,
            tokens,
            minus_infinity,
            tile,
            visited,
        );
        softmax.raise(raised, &scores, minus_infinity, tiles);
        softmax.weigh::<E>(&mut scores, weights, tiles);
    }
}
