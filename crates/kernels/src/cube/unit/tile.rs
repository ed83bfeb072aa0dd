//! The tile engine of plain multiply-adds: any device, f32 inside.
//!
//! A cube owns rows and visits others, a few at a time: queries that visit keys (forward, dQ) or keys that visit queries
//! (dK, dV). An operand is what both sides have rows of: 0 queries and keys, 1 values and gradients of `out`. Where there
//! is shared memory for it, rows are staged whole and once; else slices of them in turn.

use cubecl::prelude::*;

use super::size::{CubeSize, LANES};
use crate::cube::config::Config;
use crate::cube::round::rounded;
use crate::cube::rows::{HeadRows, load};
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, NONE, RowWalk, TokenRows};

/// Shared memory of a cube.
#[derive(CubeType)]
pub(super) struct Scratch<N: Size> {
    /// Slices of rows, or whole rows: the owned ones of each operand, then the visited ones.
    stage: Shared<[Vector<f32, N>]>,
    /// Weights of the pairs, `[owned, weight_stride]`.
    weights: Shared<[f32]>,
    /// Tokens of the visited rows.
    tokens: Shared<[i32]>,
    #[cube(comptime)]
    size: CubeSize,
    #[cube(comptime)]
    dims: [usize; 2],
    /// Operands that the cube owns rows of.
    #[cube(comptime)]
    owns: usize,
}

/// Scratch for operands of `dims` elements a row, of the first `owns` of which the cube owns rows.
#[cube]
pub(super) fn scratch<N: Size>(
    #[comptime] size: CubeSize,
    #[comptime] dims: [usize; 2],
    #[comptime] owns: usize,
) -> Scratch<N> {
    Scratch::<N> {
        stage: Shared::<[Vector<f32, N>]>::new_slice(comptime!(size.stage(dims, owns))),
        weights: Shared::<[f32]>::new_slice(comptime!(size.owned * size.weight_stride())),
        tokens: Shared::<[i32]>::new_slice(comptime!(size.visited)),
        size,
        dims,
        owns,
    }
}

/// The `i`-th owned row of this unit.
#[cube]
pub(super) fn owned_row(#[comptime] i: usize, #[comptime] size: CubeSize) -> u32 {
    UNIT_POS / comptime!(size.across as u32) + comptime!((i * size.down()) as u32)
}

/// The `j`-th visited row of this unit.
#[cube]
fn visited_row(#[comptime] j: usize, #[comptime] size: CubeSize) -> u32 {
    UNIT_POS % comptime!(size.across as u32) + comptime!((j * size.across) as u32)
}

/// The row of the `n`-th vector that this unit stages of slices of `vectors` a row.
#[cube]
pub(super) fn staged_row(
    #[comptime] n: usize,
    #[comptime] vectors: usize,
    #[comptime] size: CubeSize,
) -> u32 {
    (UNIT_POS + comptime!((n * size.units) as u32)) / comptime!(vectors as u32)
}

#[cube]
impl<N: Size> Scratch<N> {
    /// Sets the keys that are visited next: of `rows`, those that a query of the tile attends.
    pub(super) fn visit_keys(
        &mut self,
        index: &[i32],
        rows: &TokenRows,
        walk: &RowWalk,
        distances: &Distances,
        #[comptime] tile: Tile,
    ) {
        sync_cube();
        if UNIT_POS < comptime!(self.size.visited as u32) {
            let token = rows.token(index, UNIT_POS, tile);
            let reads = walk.reads(index, distances, token, tile);
            self.tokens[UNIT_POS as usize] = select(reads, token, NONE);
        }
        sync_cube();
    }

    /// Sets the queries that are visited next, of the head whose first row in `stats` is `first_row`.
    ///
    /// Queries that attend nothing are left out: theirs and their gradients' rows may hold anything.
    pub(super) fn visit_queries(
        &mut self,
        index: &[i32],
        rows: &TokenRows,
        stats: &[f32],
        first_row: usize,
        q_start: i32,
        #[comptime] tile: Tile,
    ) {
        sync_cube();
        if UNIT_POS < comptime!(self.size.visited as u32) {
            let mut token = rows.token(index, UNIT_POS, tile);
            if token != NONE {
                // Below any lse that is not minus infinity.
                if stats[first_row + usize::cast_from(token - q_start)] < f32::MIN {
                    token = NONE.runtime();
                }
            }
            self.tokens[UNIT_POS as usize] = token;
        }
        sync_cube();
    }

    /// The token of this unit's `j`-th visited row, or [`NONE`].
    pub(super) fn visited_token(&self, #[comptime] j: usize) -> i32 {
        self.tokens[visited_row(j, self.size) as usize]
    }

    /// Stages the owned rows of an operand, where rows are staged whole. `tokens` are those that this unit stages.
    pub(super) fn own<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        tensor: &Tensor<Vector<E, N>>,
        rows: &HeadRows,
        tokens: &Array<i32>,
    ) {
        if comptime!(self.size.whole) {
            self.stage_owned::<E>(operand, tensor, rows, tokens, 0usize);
        }
    }

    /// Stages the visited rows of an operand, where rows are staged whole. [`Scratch::staged`] ends it.
    pub(super) fn visit<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        tensor: &Tensor<Vector<E, N>>,
        rows: &HeadRows,
    ) {
        if comptime!(self.size.whole) {
            self.stage_visited::<E>(operand, tensor, rows, 0usize);
        }
    }

    /// After [`Scratch::visit`] of all operands.
    pub(super) fn staged(&self) {
        if comptime!(self.size.whole) {
            sync_cube();
        }
    }

    /// Slice `slice` of the owned rows.
    fn stage_owned<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        tensor: &Tensor<Vector<E, N>>,
        rows: &HeadRows,
        tokens: &Array<i32>,
        slice: usize,
    ) {
        let (size, dims, owns) = comptime!((self.size, self.dims, self.owns));
        let (vectors, stride) = comptime!((size.slice(dims[operand]), size.stride(dims[operand])));
        let at = comptime!(size.place(operand, false, dims, owns));
        #[unroll]
        for n in 0..comptime!(size.staged(size.owned, dims[operand])) {
            let row = staged_row(n, vectors, size) as usize;
            let column = (UNIT_POS as usize + comptime!(n * size.units)) % vectors;
            if row < size.owned {
                self.stage[at + row * stride + column] =
                    load::<E, N>(tensor, rows, tokens[n], slice * vectors + column);
            }
        }
    }

    /// Slice `slice` of the visited rows.
    fn stage_visited<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        tensor: &Tensor<Vector<E, N>>,
        rows: &HeadRows,
        slice: usize,
    ) {
        let (size, dims, owns) = comptime!((self.size, self.dims, self.owns));
        let (vectors, stride) = comptime!((size.slice(dims[operand]), size.stride(dims[operand])));
        let at = comptime!(size.place(operand, true, dims, owns));
        #[unroll]
        for n in 0..comptime!(size.staged(size.visited, dims[operand])) {
            let row = staged_row(n, vectors, size) as usize;
            let column = (UNIT_POS as usize + comptime!(n * size.units)) % vectors;
            if row < size.visited {
                self.stage[at + row * stride + column] =
                    load::<E, N>(tensor, rows, self.tokens[row], slice * vectors + column);
            }
        }
    }

    /// `scores[i, j] = owned row i . visited row j` of an operand. Rows without a token are zeros.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn products<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        owned: &Tensor<Vector<E, N>>,
        owned_rows: &HeadRows,
        owned_tokens: &Array<i32>,
        visited: &Tensor<Vector<E, N>>,
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
        visited: &Tensor<Vector<E, N>>,
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

    /// The largest of `values[i]` among the units that share row `i`.
    pub(super) fn row_max(&mut self, values: &mut Array<f32>) {
        let size = comptime!(self.size);
        if comptime!(!size.planes) {
            self.share(&*values);
        }
        #[unroll]
        for i in 0..comptime!(size.rows()) {
            if comptime!(size.planes) {
                #[unroll]
                for step in 0..comptime!(size.across.ilog2()) {
                    let other = plane_shuffle_xor(values[i], comptime!(1u32 << step));
                    values[i] = max(values[i], other);
                }
            } else {
                #[unroll]
                for unit in 0..size.across {
                    let other = self.weights[owned_row(i, size) as usize * size.across + unit];
                    values[i] = max(values[i], other);
                }
            }
        }
    }

    /// The sum of `values[i]` over the units that share row `i`, in the same order for all of them.
    pub(super) fn row_sum(&mut self, values: &mut Array<f32>) {
        let size = comptime!(self.size);
        if comptime!(!size.planes) {
            self.share(&*values);
        }
        #[unroll]
        for i in 0..comptime!(size.rows()) {
            let mut sum = f32::new(0.0);
            if comptime!(size.planes) {
                sum = values[i];
                #[unroll]
                for step in 0..comptime!(size.across.ilog2()) {
                    sum += plane_shuffle_xor(sum, comptime!(1u32 << step));
                }
            } else {
                #[unroll]
                for unit in 0..size.across {
                    sum += self.weights[owned_row(i, size) as usize * size.across + unit];
                }
            }
            values[i] = sum;
        }
    }

    /// Lays `values` of all units out by row in the place of the weights.
    fn share(&mut self, values: &Array<f32>) {
        let size = comptime!(self.size);
        sync_cube();
        #[unroll]
        for i in 0..comptime!(size.rows()) {
            let row = owned_row(i, size) as usize * size.across;
            self.weights[row + UNIT_POS as usize % size.across] = values[i];
        }
        sync_cube();
    }
}

/// Waits for the units that share rows.
#[cube]
fn sync_row(#[comptime] size: CubeSize) {
    if comptime!(size.planes) {
        sync_plane();
    } else {
        sync_cube();
    }
}

/// Makes the sums of a row zeros where it attends nothing: rows that others of the tile attend may be infinite, and 0
/// times that is not 0.
#[cube]
pub(super) fn clear_row<N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    #[comptime] i: usize,
    empty: bool,
    #[comptime] dim: usize,
    #[comptime] size: CubeSize,
) {
    let held = comptime!(size.held(dim));
    if empty {
        #[unroll]
        for u in 0..held {
            sums[i * held + u] = Vector::new(0.0f32);
        }
    }
}

/// Writes this unit's part of a row.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn store_row<E: Float, N: Size>(
    tensor: &mut Tensor<Vector<E, N>>,
    rows: &HeadRows,
    token: i32,
    sums: &Array<Vector<f32, N>>,
    #[comptime] i: usize,
    factor: f32,
    #[comptime] dim: usize,
    #[comptime] config: Config,
) {
    let size = comptime!(config.unit);
    let held = comptime!(size.held(dim));
    #[unroll]
    for u in 0..held {
        let column = UNIT_POS as usize % size.across + comptime!(u * size.across);
        if column < comptime!(dim / LANES) {
            let result = sums[i * held + u] * Vector::<f32, N>::new(factor);
            tensor[rows.at(token) + column] = rounded::<E, N>(result, LANES, config.results);
        }
    }
}

/// Whether this unit speaks for its rows.
#[cube]
pub(super) fn first_across(#[comptime] size: CubeSize) -> bool {
    UNIT_POS % comptime!(size.across as u32) == 0u32
}
