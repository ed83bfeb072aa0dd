//! The softmax of rows whose scores come a few at a time, and what it sums.

use cubecl::prelude::*;

use super::fragments::{Pair, accumulate, add_row_sums, rounded, zeros};
use super::intrinsics::exp2;
use super::products::{Products, row_max, row_sum};
use super::stage::{Stage, chunks};
use super::wmma;

/// Where a row's maximum starts.
const LOWEST: f32 = f32::MIN;
/// How far, in powers of 2, a maximum may be behind.
const LAZY: f32 = 8.0;

/// The rows of a plane: maxima, sums of weights and of weighted values.
#[derive(CubeType)]
pub(super) struct Softmax {
    maxima: Array<f32>,
    sums: Array<f32>,
    /// Of the weights as products see them: divided by these, weighted values are an average, never beyond the values.
    rounded_sums: Array<Pair<f32>>,
    pub(super) results: Array<Pair<f32>>,
    /// From a score to a power of 2; positive.
    factor: f32,
    #[cube(comptime)]
    parts: usize,
    #[cube(comptime)]
    value_dim: usize,
    /// Whether weights are multiplied as sums of two numbers, so that no digit of theirs is lost.
    #[cube(comptime)]
    exact: bool,
    #[cube(comptime)]
    instructions: bool,
    #[cube(comptime)]
    products: Products,
}

/// What a row has summed.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct RowSums {
    /// The score whose weight is 1, in powers of e.
    pub(super) maximum: f32,
    /// The sum of the weights.
    pub(super) sum: f32,
    /// That of the weights as products see them, which results are divided by.
    pub(super) whole: f32,
}

#[cube]
pub(super) fn softmax(
    factor: f32,
    #[comptime] parts: usize,
    #[comptime] value_dim: usize,
    #[comptime] exact: bool,
    #[comptime] instructions: bool,
    #[comptime] products: Products,
) -> Softmax {
    let rows = comptime!(products.rows(parts));
    let mut maxima = Array::<f32>::new(rows);
    let mut sums = Array::<f32>::new(rows);
    #[unroll]
    for row in 0..rows {
        maxima[row] = f32::new(LOWEST);
        sums[row] = f32::new(0.0);
    }
    Softmax {
        maxima,
        sums,
        rounded_sums: zeros(parts),
        results: zeros(comptime!(parts * chunks(value_dim))),
        factor,
        parts,
        value_dim,
        exact,
        instructions,
        products,
    }
}

#[cube]
impl Softmax {
    /// Raises the maxima to those of scores of `tiles` tiles where they are far behind, and with them lowers what was
    /// summed and `pending`, weights that wait to be multiplied.
    ///
    /// Weights may grow to 2^8 before that: most scores bring no maximum so much higher.
    pub(super) fn raise(
        &mut self,
        scores: &Array<Pair<f32>>,
        pending: &mut Array<Pair<f32>>,
        minus_infinity: f32,
        #[comptime] tiles: usize,
        #[comptime] pending_tiles: usize,
    ) {
        let (products, value_tiles) = comptime!((self.products, chunks(self.value_dim)));
        let rows = comptime!(products.rows(self.parts));
        let mut tops = Array::<f32>::new(rows);
        let mut any_higher = false;
        #[unroll]
        for row in 0..rows {
            let mut top = minus_infinity;
            #[unroll]
            for n in 0..comptime!(products.row_pairs(tiles)) {
                let pair = scores[comptime!(products.pair_of(row, n, tiles))];
                top = max(top, max(pair.extract(0usize), pair.extract(1usize)));
            }
            tops[row] = row_max(top, products);
            any_higher = any_higher || self.is_behind(row, tops[row]);
        }
        if plane_any(any_higher) {
            #[unroll]
            for row in 0..rows {
                let top = select(self.is_behind(row, tops[row]), tops[row], self.maxima[row]);
                let kept = exp2((self.maxima[row] - top) * self.factor, self.instructions);
                self.maxima[row] = top;
                self.sums[row] *= kept;
                self.rounded_sums[row] *= Vector::new(kept);
                #[unroll]
                for n in 0..comptime!(products.row_pairs(value_tiles)) {
                    self.results[comptime!(products.pair_of(row, n, value_tiles))] *=
                        Vector::new(kept);
                }
                #[unroll]
                for n in 0..comptime!(products.row_pairs(pending_tiles)) {
                    pending[comptime!(products.pair_of(row, n, pending_tiles))] *=
                        Vector::new(kept);
                }
            }
        }
    }

    fn is_behind(&self, #[comptime] row: usize, top: f32) -> bool {
        (top - self.maxima[row]) * self.factor > f32::new(LAZY)
    }

    /// Makes scores of `tiles` tiles weights.
    pub(super) fn weigh(&mut self, scores: &mut Array<Pair<f32>>, #[comptime] tiles: usize) {
        #[unroll]
        for n in 0..comptime!(2 * self.parts * tiles) {
            let row = comptime!(self.products.row_of(n, tiles));
            let mut pair = scores[n];
            #[unroll]
            for e in 0..2usize {
                // The difference first: of huge scores, products keep no digit after the point.
                let power = (pair.extract(e) - self.maxima[row]) * self.factor;
                pair.insert(e, exp2(power, self.instructions));
            }
            self.sums[row] += pair.extract(0usize) + pair.extract(1usize);
            scores[n] = pair;
        }
    }

    /// Adds the values of rows `first ..`, weighted.
    pub(super) fn add<E: Float, N: Size>(
        &mut self,
        weights: &mut Array<Pair<f32>>,
        values: &Stage<E, N>,
        first: usize,
        #[comptime] tiles: usize,
    ) {
        let (parts, dim) = comptime!((self.parts, self.value_dim));
        let high = rounded::<E>(&*weights, comptime!(parts * tiles));
        if comptime!(!self.exact) {
            if comptime!(self.products == Products::Wmma) {
                wmma::add_row_sums::<E>(&mut self.rounded_sums, &high, tiles, parts);
            } else {
                add_row_sums::<E>(&mut self.rounded_sums, &high, tiles, parts);
            }
        }
        accumulate::<E, N>(&mut self.results, &high, values, first, tiles, dim, parts);
        if comptime!(self.exact) {
            #[unroll]
            for n in 0..comptime!(2 * parts * tiles) {
                weights[n] -= Vector::cast_from(high[n]);
            }
            let low = rounded::<E>(&*weights, comptime!(parts * tiles));
            accumulate::<E, N>(&mut self.results, &low, values, first, tiles, dim, parts);
        }
    }

    /// What a row has summed, the same for all units that share it.
    pub(super) fn row(&self, #[comptime] row: usize) -> RowSums {
        let products = comptime!(self.products);
        let sum = row_sum(self.sums[row], products);
        let mut whole = sum;
        if comptime!(!self.exact) {
            let pair = self.rounded_sums[row];
            whole = if comptime!(products == Products::Wmma) {
                row_sum(pair.extract(0usize) + pair.extract(1usize), products)
            } else {
                pair.extract(0usize)
            };
        }
        RowSums {
            maximum: self.maxima[row] * self.factor / f32::new(core::f32::consts::LOG2_E),
            sum,
            whole,
        }
    }

    /// Divides the results of a row, zeros where it is `left_out` or attends nothing, and gives its lse.
    pub(super) fn finish(
        &mut self,
        #[comptime] row: usize,
        left_out: bool,
        minus_infinity: f32,
    ) -> f32 {
        let (products, value_tiles) = comptime!((self.products, chunks(self.value_dim)));
        let of_row = self.row(row);
        // Scores that are not a number leave the maximum alone, but not the sum.
        let empty = of_row.sum == 0.0f32 || left_out;
        let part = select(empty, f32::new(0.0), f32::new(1.0) / of_row.whole);
        #[unroll]
        for n in 0..comptime!(products.row_pairs(value_tiles)) {
            // Values that others of the tile attend may be infinite, and 0 times that is not 0.
            let mut pair =
                self.results[comptime!(products.pair_of(row, n, value_tiles))] * Vector::new(part);
            #[unroll]
            for e in 0..2usize {
                pair.insert(e, select(empty, f32::new(0.0), pair.extract(e)));
            }
            self.results[comptime!(products.pair_of(row, n, value_tiles))] = pair;
        }
        select(empty, minus_infinity, of_row.maximum + of_row.sum.ln())
    }
}
