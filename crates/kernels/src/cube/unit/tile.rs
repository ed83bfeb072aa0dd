//! The tile engine of plain multiply-adds: any device, f32 inside.
//!
//! A cube of 128 units owns 64 rows and visits 32 rows at a time: queries that visit keys (forward, dQ) or keys that visit
//! queries (dK, dV). Unit `u` holds the scores of rows `u / 8 + 16 i` against visited rows `u % 8 + 8 j` (`i, j < 4`), and
//! of each owned row every eighth vector of the accumulator. It takes 16 KiB of shared memory, what WebGPU promises.

use cubecl::prelude::*;

use crate::cube::round::{Rounding, rounded};
use crate::cube::rows::{HeadRows, load};
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, NONE, RowWalk, TokenRows};

/// Units of a cube.
pub(in crate::cube) const UNITS: usize = 128;
/// Rows that a cube owns.
pub(in crate::cube) const OWNED: usize = 64;
/// Rows that it visits at a time.
pub(in crate::cube) const VISITED: usize = 32;
/// Elements of a vector.
pub(in crate::cube) const LANES: usize = 4;

/// Units along the visited rows.
const ACROSS: usize = 8;
/// Units along the owned rows.
const DOWN: usize = UNITS / ACROSS;
/// Owned rows of a unit.
pub(super) const ROWS: usize = OWNED / DOWN;
/// Visited rows of a unit.
pub(super) const COLUMNS: usize = VISITED / ACROSS;
/// Scores of a unit.
pub(super) const SCORES: usize = ROWS * COLUMNS;

/// Vectors of the staging area: slices of four vectors of owned and visited rows, one more a row against bank conflicts.
const STAGE: usize = (OWNED + VISITED) * 5;
/// Weights of a row, one more against bank conflicts.
const WEIGHT_STRIDE: usize = VISITED + 1;

/// Vectors a row of a slice: sums are over whole slices.
fn slice_vectors(dim: usize) -> usize {
    if dim % 16 == 0 { 4 } else { 2 }
}

/// Visited rows that are staged whole at a time.
fn stage_rows(dim: usize) -> usize {
    let fits = STAGE / (dim / LANES);
    (1..=VISITED)
        .rev()
        .find(|rows| *rows <= fits && VISITED % rows == 0)
        .unwrap_or(1)
}

/// Vectors of an accumulator's row that a unit holds.
pub(super) fn held_vectors(dim: usize) -> usize {
    (dim / LANES).div_ceil(ACROSS)
}

/// Shared memory of a cube.
#[derive(CubeType)]
pub(super) struct Scratch<N: Size> {
    /// Slices of rows.
    stage: Shared<[Vector<f32, N>]>,
    /// Weights of the pairs, `[OWNED, WEIGHT_STRIDE]`.
    weights: Shared<[f32]>,
    /// Tokens of the visited rows.
    tokens: Shared<[i32]>,
}

/// Bytes of [`Scratch`].
pub(in crate::cube) const SHARED_BYTES: usize =
    (STAGE * LANES + OWNED * WEIGHT_STRIDE + VISITED) * 4;

#[cube]
pub(super) fn scratch<N: Size>() -> Scratch<N> {
    Scratch::<N> {
        stage: Shared::<[Vector<f32, N>]>::new_slice(STAGE),
        weights: Shared::<[f32]>::new_slice(comptime!(OWNED * WEIGHT_STRIDE)),
        tokens: Shared::<[i32]>::new_slice(VISITED),
    }
}

/// The `i`-th owned row of this unit.
#[cube]
pub(super) fn owned_row(#[comptime] i: usize) -> u32 {
    UNIT_POS / comptime!(ACROSS as u32) + comptime!((i * DOWN) as u32)
}

/// The `j`-th visited row of this unit.
#[cube]
pub(super) fn visited_row(#[comptime] j: usize) -> u32 {
    UNIT_POS % comptime!(ACROSS as u32) + comptime!((j * ACROSS) as u32)
}

/// The `n`-th row that this unit stages of a slice of `vectors` a row.
#[cube]
pub(super) fn staged_row(#[comptime] n: usize, #[comptime] vectors: usize) -> u32 {
    (UNIT_POS + comptime!((n * UNITS) as u32)) / comptime!(vectors as u32)
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
        if UNIT_POS < comptime!(VISITED as u32) {
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
        if UNIT_POS < comptime!(VISITED as u32) {
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
        self.tokens[visited_row(j) as usize]
    }

    /// `scores[i, j] = owned row i . visited row j`, over `dim` elements. Rows without a token are zeros.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn products<E: Float>(
        &mut self,
        owned: &Tensor<Vector<E, N>>,
        owned_rows: &HeadRows,
        owned_tokens: &Array<i32>,
        visited: &Tensor<Vector<E, N>>,
        visited_rows: &HeadRows,
        #[comptime] dim: usize,
    ) -> Array<f32> {
        let vectors = comptime!(slice_vectors(dim));
        let stride = comptime!(vectors + 1);
        let slices = comptime!(dim / LANES / vectors);
        let mut scores = Array::<f32>::new(SCORES);
        #[unroll]
        for n in 0..SCORES {
            scores[n] = f32::new(0.0);
        }
        let column = UNIT_POS as usize % vectors;
        for slice in 0..slices {
            sync_cube();
            #[unroll]
            for n in 0..comptime!(staged(OWNED, dim)) {
                let row = staged_row(n, vectors) as usize;
                if row < OWNED {
                    self.stage[row * stride + column] =
                        load::<E, N>(owned, owned_rows, owned_tokens[n], slice * vectors + column);
                }
            }
            #[unroll]
            for n in 0..comptime!(staged(VISITED, dim)) {
                let row = staged_row(n, vectors) as usize;
                if row < VISITED {
                    self.stage[(row + OWNED) * stride + column] = load::<E, N>(
                        visited,
                        visited_rows,
                        self.tokens[row],
                        slice * vectors + column,
                    );
                }
            }
            sync_cube();
            #[unroll]
            for c in 0..vectors {
                #[unroll]
                for i in 0..ROWS {
                    let a = self.stage[owned_row(i) as usize * stride + c];
                    #[unroll]
                    for j in 0..COLUMNS {
                        let b = self.stage[(visited_row(j) as usize + OWNED) * stride + c];
                        let mut sum = scores[i * COLUMNS + j];
                        #[unroll]
                        for lane in 0..LANES {
                            sum += a.extract(lane) * b.extract(lane);
                        }
                        scores[i * COLUMNS + j] = sum;
                    }
                }
            }
        }
        scores
    }

    /// Puts this unit's weights where [`Scratch::accumulate`] reads them. Earlier reads must be over.
    pub(super) fn put_weights(&mut self, weights: &Array<f32>) {
        #[unroll]
        for i in 0..ROWS {
            #[unroll]
            for j in 0..COLUMNS {
                self.weights[owned_row(i) as usize * WEIGHT_STRIDE + visited_row(j) as usize] =
                    weights[i * COLUMNS + j];
            }
        }
    }

    /// `sums[i] += sum over j of weights[i, j] * visited row j`, for all weights of the cube.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn accumulate<E: Float>(
        &mut self,
        sums: &mut Array<Vector<f32, N>>,
        visited: &Tensor<Vector<E, N>>,
        visited_rows: &HeadRows,
        #[comptime] dim: usize,
    ) {
        let vectors = comptime!(dim / LANES);
        let rows = comptime!(stage_rows(dim));
        let held = comptime!(held_vectors(dim));
        for slice in 0..comptime!(VISITED / rows) {
            sync_cube();
            #[unroll]
            for n in 0..comptime!((rows * vectors).div_ceil(UNITS)) {
                let place = UNIT_POS as usize + comptime!(n * UNITS);
                if place < comptime!(rows * vectors) {
                    let token = self.tokens[slice * rows + place / vectors];
                    self.stage[place] = load::<E, N>(visited, visited_rows, token, place % vectors);
                }
            }
            sync_cube();
            for row in 0..rows {
                let mut weights = Array::<f32>::new(ROWS);
                #[unroll]
                for i in 0..ROWS {
                    weights[i] =
                        self.weights[owned_row(i) as usize * WEIGHT_STRIDE + slice * rows + row];
                }
                #[unroll]
                for u in 0..held {
                    let column = UNIT_POS as usize % ACROSS + comptime!(u * ACROSS);
                    if column < vectors {
                        let value = self.stage[row * vectors + column];
                        #[unroll]
                        for i in 0..ROWS {
                            sums[i * held + u] += value * Vector::<f32, N>::new(weights[i]);
                        }
                    }
                }
            }
        }
    }

    /// The largest of `values[i]` among the units that share row `i`.
    pub(super) fn row_max(&mut self, values: &mut Array<f32>) {
        self.share(&*values);
        #[unroll]
        for i in 0..ROWS {
            #[unroll]
            for unit in 0..ACROSS {
                let other = self.weights[owned_row(i) as usize * ACROSS + unit];
                values[i] = max(values[i], other);
            }
        }
    }

    /// The sum of `values[i]` over the units that share row `i`, in the same order for all of them.
    pub(super) fn row_sum(&mut self, values: &mut Array<f32>) {
        self.share(&*values);
        #[unroll]
        for i in 0..ROWS {
            let mut sum = f32::new(0.0);
            #[unroll]
            for unit in 0..ACROSS {
                sum += self.weights[owned_row(i) as usize * ACROSS + unit];
            }
            values[i] = sum;
        }
    }

    /// Lays `values` of all units out by row in the place of the weights.
    fn share(&mut self, values: &Array<f32>) {
        sync_cube();
        #[unroll]
        for i in 0..ROWS {
            self.weights[owned_row(i) as usize * ACROSS + UNIT_POS as usize % ACROSS] = values[i];
        }
        sync_cube();
    }
}

/// Rows that a unit stages of each slice.
pub(super) fn staged(rows: usize, dim: usize) -> usize {
    (rows * slice_vectors(dim)).div_ceil(UNITS)
}

/// Vectors a slice, for [`staged_row`].
pub(super) fn vectors_of(dim: usize) -> usize {
    slice_vectors(dim)
}

/// Makes the sums of a row zeros where it attends nothing: rows that others of the tile attend may be infinite, and 0
/// times that is not 0.
#[cube]
pub(super) fn clear_row<N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    #[comptime] i: usize,
    empty: bool,
    #[comptime] dim: usize,
) {
    let held = comptime!(held_vectors(dim));
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
    #[comptime] results: Rounding,
) {
    let held = comptime!(held_vectors(dim));
    #[unroll]
    for u in 0..held {
        let column = UNIT_POS as usize % ACROSS + comptime!(u * ACROSS);
        if column < comptime!(dim / LANES) {
            let result = sums[i * held + u] * Vector::<f32, N>::new(factor);
            tensor[rows.at(token) + column] = rounded::<E, N>(result, LANES, results);
        }
    }
}

/// Whether this unit speaks for its rows.
#[cube]
pub(super) fn first_across() -> bool {
    UNIT_POS % comptime!(ACROSS as u32) == 0u32
}
