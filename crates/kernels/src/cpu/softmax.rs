//! The vectorised passes over a chunk of key-major scores: row = key, lane = query.
//!
//! Scores arrive in base 2 (the softmax scale and log2(e) are folded into the queries), so that the exponential is a
//! bare `exp2`. A chunk is `keys` rows of [`TILE_QUERIES`] lanes; lanes beyond the tile's queries hold leftovers that
//! are computed along and never read.

use std::marker::PhantomData;

use macerator::{Simd, Vector, vload_unaligned, vstore_unaligned};

use super::{Real, TILE_QUERIES};

/// One number for each query of a tile.
pub(super) type Lanes<F> = [F; TILE_QUERIES];

/// The running state of the online softmax (Milakov and Gimelshein, arXiv 1805.02867), for each query.
pub(super) struct OnlineSoftmax<F> {
    /// Largest score so far, base 2; `-inf` before the first.
    pub max: Lanes<F>,
    /// Sum of `2^(score - max)`.
    pub sum: Lanes<F>,
    /// What the accumulated output is to be multiplied by since the last chunk.
    pub rescale: Lanes<F>,
}

impl<F: Real> OnlineSoftmax<F> {
    pub(super) fn new() -> Self {
        Self {
            max: [F::NEG_INFINITY; TILE_QUERIES],
            sum: [F::ZERO; TILE_QUERIES],
            rescale: [F::ONE; TILE_QUERIES],
        }
    }

    /// Takes in a chunk: replaces its scores by `2^(score - max)` and updates the state. Only the first `queries`
    /// lanes are meaningful.
    pub(super) fn update(&mut self, scores: &mut [F], queries: usize) {
        online_update(self, scores, queries);
    }
}

#[macerator::with_simd]
fn online_update<S: Simd, F: Real>(state: &mut OnlineSoftmax<F>, scores: &mut [F], queries: usize) {
    let lanes = F::lanes::<S>();
    for first in (0..queries).step_by(lanes) {
        let column = Column::new(scores, first, lanes);
        let old_max = load::<S, F>(&state.max, first);
        let mut max: [Vector<S, F>; 4] = [old_max; 4];
        let mut key = 0;
        while key + 4 <= column.keys {
            for (part, max) in max.iter_mut().enumerate() {
                *max = max.max(column.load::<S>(key + part));
            }
            key += 4;
        }
        while key < column.keys {
            max[0] = max[0].max(column.load(key));
            key += 1;
        }
        let max = max[0].max(max[1]).max(max[2].max(max[3]));
        // A query that has attended nothing yet has no maximum to subtract.
        let attended = max.gt(F::NEG_INFINITY.splat());
        let shift = attended.select(max, F::ZERO.splat());
        let rescale = F::exp2(old_max - shift);
        let mut sum = [load(&state.sum, first) * rescale, F::ZERO.splat()];
        for key in 0..column.keys {
            let probability = F::exp2(column.load::<S>(key) - shift);
            sum[key % 2] += probability;
            column.store(key, probability);
        }
        store(&mut state.max, first, max);
        store(&mut state.sum, first, sum[0] + sum[1]);
        store(&mut state.rescale, first, rescale);
    }
}

/// The backward pass's view of a tile's queries.
pub(super) struct RowStatistics<F> {
    /// lse in base 2; `+inf` where a query attends nothing, which makes its probabilities 0.
    pub lse: Lanes<F>,
    /// `D = rowsum(dO * O) - d_lse`.
    pub delta: Lanes<F>,
}

/// Replaces `scores` by the probabilities `P = 2^(score - lse)` and `d_probabilities` (`V dO^T`) by
/// `dS = P * (dP - D)`.
pub(super) fn differentiate<F: Real>(
    statistics: &RowStatistics<F>,
    scores: &mut [F],
    d_probabilities: &mut [F],
    queries: usize,
) {
    assert_eq!(scores.len(), d_probabilities.len());
    differentiate_columns(statistics, scores, d_probabilities, queries);
}

#[macerator::with_simd]
fn differentiate_columns<S: Simd, F: Real>(
    statistics: &RowStatistics<F>,
    scores: &mut [F],
    d_probabilities: &mut [F],
    queries: usize,
) {
    let lanes = F::lanes::<S>();
    for first in (0..queries).step_by(lanes) {
        let column = Column::new(scores, first, lanes);
        let d_column = Column::new(d_probabilities, first, lanes);
        let lse = load::<S, F>(&statistics.lse, first);
        let delta = load::<S, F>(&statistics.delta, first);
        for key in 0..column.keys {
            // A probability is at most 1; a little above it is the rounding of lse, which large scores magnify.
            let exponent = column.load::<S>(key) - lse;
            let above = exponent.gt(F::ZERO.splat());
            let probability = F::exp2(above.select(F::ZERO.splat(), exponent));
            column.store(key, probability);
            d_column.store(key, probability * (d_column.load(key) - delta));
        }
    }
}

/// `lanes` neighbouring queries of every key of a chunk.
struct Column<'a, F> {
    data: *mut F,
    keys: usize,
    chunk: PhantomData<&'a mut [F]>,
}

impl<'a, F: Real> Column<'a, F> {
    /// Checks once that every access of the column is in bounds: rows are whole, and a vector ends within its row.
    #[inline(always)]
    fn new(chunk: &'a mut [F], first: usize, lanes: usize) -> Self {
        assert!(chunk.len().is_multiple_of(TILE_QUERIES) && first + lanes <= TILE_QUERIES);
        Self {
            keys: chunk.len() / TILE_QUERIES,
            data: chunk[first..].as_mut_ptr(),
            chunk: PhantomData,
        }
    }

    #[inline(always)]
    fn load<S: Simd>(&self, key: usize) -> Vector<S, F> {
        debug_assert!(key < self.keys);
        // SAFETY: in bounds by `new` for `key < self.keys`, which every loop above keeps to.
        unsafe { vload_unaligned(self.data.add(key * TILE_QUERIES)) }
    }

    #[inline(always)]
    fn store<S: Simd>(&self, key: usize, value: Vector<S, F>) {
        debug_assert!(key < self.keys);
        // SAFETY: as in `load`; the chunk is borrowed mutably for as long as the column lives.
        unsafe { vstore_unaligned(self.data.add(key * TILE_QUERIES), value) }
    }
}

#[inline(always)]
fn load<S: Simd, F: Real>(values: &Lanes<F>, first: usize) -> Vector<S, F> {
    assert!(first + F::lanes::<S>() <= TILE_QUERIES);
    // SAFETY: in bounds by the assertion.
    unsafe { vload_unaligned(values[first..].as_ptr()) }
}

#[inline(always)]
fn store<S: Simd, F: Real>(values: &mut Lanes<F>, first: usize, value: Vector<S, F>) {
    assert!(first + F::lanes::<S>() <= TILE_QUERIES);
    // SAFETY: in bounds by the assertion.
    unsafe { vstore_unaligned(values[first..].as_mut_ptr(), value) }
}
