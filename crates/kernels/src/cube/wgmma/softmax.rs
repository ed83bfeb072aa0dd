//! The softmax of rows whose scores come a few at a time.

use cubecl::prelude::*;

use super::weights::Weights;
use crate::cube::mma::fragments::Pair;
use crate::cube::mma::intrinsics::exp2;
use crate::cube::mma::products::{Products, row_max, row_sum};
use crate::cube::softmax::{HEAVY, LAZY, LOWEST};

/// Powers of 2 up to which f32 keeps 13 binary digits after the point.
const LARGE: f32 = 1024.0;

/// The two rows of a unit: maxima and sums of weights.
#[derive(CubeType)]
pub(super) struct Softmax {
    maxima: Array<f32>,
    /// The maxima as powers of 2.
    powers: Array<f32>,
    /// Whether those lose so little by rounding, for all rows of the plane, that the largest weights are still about 1.
    exact: bool,
    sums: Array<f32>,
    /// From a score to a power of 2; positive.
    factor: f32,
}

/// What maxima that were raised leave of what has been summed.
#[derive(CubeType)]
pub(super) struct Raised {
    pub(super) any: bool,
    pub(super) kept: Array<f32>,
}

/// No maximum was raised.
#[cube]
pub(super) fn unchanged() -> Raised {
    let mut kept = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        kept[half] = f32::new(1.0);
    }
    Raised {
        any: false.runtime(),
        kept,
    }
}

#[cube]
pub(super) fn softmax(factor: f32) -> Softmax {
    let mut maxima = Array::<f32>::new(2usize);
    let mut powers = Array::<f32>::new(2usize);
    let mut sums = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        maxima[half] = f32::new(LOWEST);
        powers[half] = f32::new(LOWEST);
        sums[half] = f32::new(0.0);
    }
    Softmax {
        maxima,
        powers,
        // Until a maximum is raised: scores as low as the lowest number would have no weight beside that.
        exact: false.runtime(),
        sums,
        factor,
    }
}

#[cube]
impl Softmax {
    /// Raises the maxima to those of scores of `tiles` tiles where they are far behind.
    ///
    /// Weights may grow to 2^8 before that, and to 2^12 where [`Self::try_to_weigh`] does not call this: most scores bring no maximum
    /// so much higher.
    pub(super) fn raise(
        &mut self,
        raised: &mut Raised,
        scores: &Array<Pair<f32>>,
        minus_infinity: f32,
        #[comptime] tiles: usize,
    ) {
        let mut tops = Array::<f32>::new(2usize);
        let mut any_higher = false;
        #[unroll]
        for half in 0..2usize {
            let mut top = minus_infinity;
            #[unroll]
            for n in 0..tiles {
                let pair = scores[comptime!(2 * n + half)];
                top = max(top, max(pair.extract(0usize), pair.extract(1usize)));
            }
            tops[half] = row_max(top, Products::Mma);
            any_higher = any_higher || self.is_behind(half, tops[half]);
        }
        raised.any = plane_any(any_higher);
        if raised.any {
            let mut before = Array::<f32>::new(2usize);
            let mut exact = true;
            #[unroll]
            for half in 0..2usize {
                let top = select(
                    self.is_behind(half, tops[half]),
                    tops[half],
                    self.maxima[half],
                );
                raised.kept[half] = (self.maxima[half] - top) * self.factor;
                before[half] = self.powers[half];
                self.maxima[half] = top;
                // Nothing has been summed below the lowest.
                self.powers[half] = max(top * self.factor, f32::new(LOWEST));
                exact = exact && self.powers[half].abs() <= f32::new(LARGE);
            }
            self.exact = plane_all(exact);
            #[unroll]
            for half in 0..2usize {
                if self.exact {
                    raised.kept[half] = before[half] - self.powers[half];
                }
                raised.kept[half] = exp2(raised.kept[half], true);
                self.sums[half] *= raised.kept[half];
            }
        }
    }

    fn is_behind(&self, #[comptime] half: usize, top: f32) -> bool {
        (top - self.maxima[half]) * self.factor > f32::new(LAZY)
    }

    /// Makes scores of `tiles` tiles, all of which attend, weights by the maxima as they are. `false`, and nothing is summed, where a
    /// score of the plane is so far above its row's maximum that this must be raised first.
    ///
    /// Maxima and their exchange are a sixth of a visit's instructions, and few visits but the first raise one.
    pub(super) fn try_to_weigh<E: Float>(
        &mut self,
        scores: &Array<Pair<f32>>,
        weights: &mut Weights<E>,
        #[comptime] tiles: usize,
    ) -> bool {
        let mut sums = Array::<f32>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            sums[half] = f32::new(0.0);
        }
        #[unroll]
        for n in 0..comptime!(2 * tiles) {
            let mut pair = scores[n];
            #[unroll]
            for e in 0..2usize {
                let power = fma(pair.extract(e), self.factor, -self.powers[comptime!(n % 2)]);
                pair.insert(e, exp2(power, true));
            }
            sums[comptime!(n % 2)] += pair.extract(0usize) + pair.extract(1usize);
            weights.put(n, pair);
        }
        // Sums that are not a number are not light either.
        let light = sums[0usize] <= f32::new(HEAVY) && sums[1usize] <= f32::new(HEAVY);
        let done = plane_all(self.exact && light);
        if done {
            #[unroll]
            for half in 0..2usize {
                self.sums[half] += sums[half];
            }
        }
        done
    }

    /// Makes scores of `tiles` tiles weights.
    pub(super) fn weigh<E: Float>(
        &mut self,
        scores: &mut Array<Pair<f32>>,
        weights: &mut Weights<E>,
        #[comptime] tiles: usize,
    ) {
        if self.exact {
            #[unroll]
            for n in 0..comptime!(2 * tiles) {
                let mut pair = scores[n];
                #[unroll]
                for e in 0..2usize {
                    let power = fma(pair.extract(e), self.factor, -self.powers[comptime!(n % 2)]);
                    pair.insert(e, power);
                }
                scores[n] = pair;
            }
        } else {
            #[unroll]
            for n in 0..comptime!(2 * tiles) {
                let mut pair = scores[n];
                #[unroll]
                for e in 0..2usize {
                    let power = (pair.extract(e) - self.maxima[comptime!(n % 2)]) * self.factor;
                    pair.insert(e, power);
                }
                scores[n] = pair;
            }
        }
        #[unroll]
        for n in 0..comptime!(2 * tiles) {
            let mut pair = scores[n];
            #[unroll]
            for e in 0..2usize {
                pair.insert(e, exp2(pair.extract(e), true));
            }
            self.sums[comptime!(n % 2)] += pair.extract(0usize) + pair.extract(1usize);
            weights.put(n, pair);
        }
    }

    /// Divides the weighted values of a row, zeros where it is `left_out` or attends nothing, and gives its lse.
    pub(super) fn finish(
        &self,
        results: &mut Array<Pair<f32>>,
        #[comptime] half: usize,
        left_out: bool,
        minus_infinity: f32,
        #[comptime] tiles: usize,
    ) -> f32 {
        let sum = row_sum(self.sums[half], Products::Mma);
        // Scores that are not a number leave the maximum alone, but not the sum.
        let empty = sum == 0.0f32 || left_out;
        let part = f32::new(1.0) / sum;
        #[unroll]
        for n in 0..tiles {
            results[comptime!(2 * n + half)] *= Vector::new(part);
        }
        if plane_any(empty) {
            #[unroll]
            for n in 0..tiles {
                // Values that others of the tile attend may be infinite, and 0 times that is not 0.
                let mut pair = results[comptime!(2 * n + half)];
                #[unroll]
                for e in 0..2usize {
                    pair.insert(e, select(empty, f32::new(0.0), pair.extract(e)));
                }
                results[comptime!(2 * n + half)] = pair;
            }
        }
        let mut power = self.maxima[half] * self.factor;
        if self.exact {
            power = self.powers[half];
        }
        let maximum = power / f32::new(core::f32::consts::LOG2_E);
        select(empty, minus_infinity, maximum + sum.ln())
    }
}
