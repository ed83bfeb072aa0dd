//! The matrix products of a visit: scores, and sums of visited rows by their weights.

use cubecl::prelude::*;

use super::exchange::sync_row;
use super::rows::{owned_row, visited_row};
use super::scratch::{Scratch, ScratchExpand};
use super::size::LANES;
use crate::cube::rows::{HeadRows, load};
use crate::cube::vector_tensor::VectorTensor;

#[cube]
impl<N: Size> Scratch<N> {
    /// `scores[i, j] = owned row i . visited row j` of an operand. Rows without a token are zeros.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn products<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        owned: &VectorTensor<E, N>,
        owned_rows: &HeadRows,
        owned_tokens: &Array<i32>,
        visited: &VectorTensor<E, N>,
        visited_rows: &HeadRows,
    ) -> Array<f32> {
        let (size, dim) = comptime!((self.size, self.dims[operand]));
        let mut scores = Array::<f32>::new(comptime!(size.scores()));
        #[unroll]
        for n in 0..comptime!(size.scores()) {
            scores[n] = f32::new(0.0);
        }
        if comptime!(size.whole) {
            // Rows have a multiple of two vectors, most of four.
            let vectors = comptime!(if dim % (4 * LANES) == 0 {
                4usize
            } else {
                2usize
            });
            for part in 0..comptime!(dim / LANES / vectors) {
                self.add_products(&mut scores, operand, part * vectors, vectors);
            }
        } else {
            let vectors = comptime!(size.slice(dim));
            for slice in 0..comptime!(dim / LANES / vectors) {
                sync_cube();
                self.stage_owned::<E>(operand, owned, owned_rows, owned_tokens, slice);
                self.stage_visited::<E>(operand, visited, visited_rows, slice);
                sync_cube();
                self.add_products(&mut scores, operand, 0usize.runtime(), vectors);
            }
        }
        scores
    }

    /// Adds the products of `vectors` staged vectors from `first` on.
    fn add_products(
        &self,
        scores: &mut Array<f32>,
        #[comptime] operand: usize,
        first: usize,
        #[comptime] vectors: usize,
    ) {
        let (size, dims, owns) = comptime!((self.size, self.dims, self.owns));
        let stride = comptime!(size.stride(dims[operand]));
        let owned_at = first + comptime!(size.place(operand, false, dims, owns));
        let visited_at = first + comptime!(size.place(operand, true, dims, owns));
        #[unroll]
        for c in 0..vectors {
            #[unroll]
            for i in 0..comptime!(size.rows()) {
                let a = self.stage[owned_at + owned_row(i, size) as usize * stride + c];
                #[unroll]
                for j in 0..comptime!(size.columns()) {
                    let b = self.stage[visited_at + visited_row(j, size) as usize * stride + c];
                    let n = comptime!(i * size.columns() + j);
                    let mut sum = scores[n];
                    #[unroll]
                    for lane in 0..LANES {
                        sum += a.extract(lane) * b.extract(lane);
                    }
                    scores[n] = sum;
                }
            }
        }
    }

    /// Puts this unit's weights where [`Scratch::accumulate`] reads them. Earlier reads must be over.
    pub(super) fn put_weights(&mut self, weights: &Array<f32>) {
        let size = comptime!(self.size);
        if comptime!(size.whole) {
            sync_row(size);
        }
        #[unroll]
        for i in 0..comptime!(size.rows()) {
            #[unroll]
            for j in 0..comptime!(size.columns()) {
                let row = owned_row(i, size) as usize * comptime!(size.weight_stride());
                self.weights[row + visited_row(j, size) as usize] =
                    weights[comptime!(i * size.columns() + j)];
            }
        }
        if comptime!(size.whole) {
            sync_row(size);
        }
    }

    /// `sums[i] += sum over j of weights[i, j] * visited row j` of an operand, for all weights of the cube.
    pub(super) fn accumulate<E: Float>(
        &mut self,
        sums: &mut Array<Vector<f32, N>>,
        #[comptime] operand: usize,
        visited: &VectorTensor<E, N>,
        visited_rows: &HeadRows,
    ) {
        let (size, dims, owns) = comptime!((self.size, self.dims, self.owns));
        let dim = comptime!(dims[operand]);
        if comptime!(size.whole) {
            let at = comptime!(size.place(operand, true, dims, owns));
            self.add_rows(
                sums,
                at,
                comptime!(size.stride(dim)),
                0usize.runtime(),
                size.visited,
                dim,
            );
        } else {
            let (vectors, rows) = comptime!((dim / LANES, size.seen(dim)));
            for slice in 0..comptime!(size.visited / rows) {
                sync_cube();
                #[unroll]
                for n in 0..comptime!((rows * vectors).div_ceil(size.units)) {
                    let place = UNIT_POS as usize + comptime!(n * size.units);
                    if place < comptime!(rows * vectors) {
                        let token = self.tokens[slice * rows + place / vectors];
                        self.stage[place] =
                            load::<E, N>(visited, visited_rows, token, place % vectors);
                    }
                }
                sync_cube();
                self.add_rows(sums, 0usize, vectors, slice * rows, rows, dim);
            }
        }
    }

    /// Adds `count` visited rows from `first` on, which are staged from `at` on.
    fn add_rows(
        &self,
        sums: &mut Array<Vector<f32, N>>,
        #[comptime] at: usize,
        #[comptime] stride: usize,
        first: usize,
        #[comptime] count: usize,
        #[comptime] dim: usize,
    ) {
        let size = comptime!(self.size);
        let (held, vectors) = comptime!((size.held(dim), dim / LANES));
        for row in 0..count {
            let mut weights = Array::<f32>::new(comptime!(size.rows()));
            #[unroll]
            for i in 0..comptime!(size.rows()) {
                let own = owned_row(i, size) as usize * comptime!(size.weight_stride());
                weights[i] = self.weights[own + first + row];
            }
            #[unroll]
            for u in 0..held {
                let column = UNIT_POS as usize % size.across + comptime!(u * size.across);
                if comptime!((u + 1) * size.across <= vectors) || column < vectors {
                    let value = self.stage[at + row * stride + column];
                    #[unroll]
                    for i in 0..comptime!(size.rows()) {
                        sums[comptime!(i * held + u)] += value * Vector::<f32, N>::new(weights[i]);
                    }
                }
            }
        }
    }
}
