//! The shared memory of a cube: which rows are visited, and the rows of both sides that are staged.

use cubecl::prelude::*;

use super::rows::{staged_row, visited_row};
use super::size::CubeSize;
use crate::cube::rows::{HeadRows, load};
use crate::cube::tile::Tile;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{Distances, NONE, RowWalk, TokenRows};

/// Shared memory of a cube.
#[derive(CubeType)]
pub(super) struct Scratch<N: Size> {
    /// Slices of rows, or whole rows: the owned ones of each operand, then the visited ones.
    pub(super) stage: Shared<[Vector<f32, N>]>,
    /// Weights of the pairs, `[owned, weight_stride]`.
    pub(super) weights: Shared<[f32]>,
    /// Tokens of the visited rows.
    pub(super) tokens: Shared<[i32]>,
    #[cube(comptime)]
    pub(super) size: CubeSize,
    #[cube(comptime)]
    pub(super) dims: [usize; 2],
    /// Operands that the cube owns rows of.
    #[cube(comptime)]
    pub(super) owns: usize,
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

    /// Sets the queries that are visited next, of the head whose row 0 is `first_row` in `stats`.
    ///
    /// Queries that attend nothing are left out: theirs and their gradients' rows may hold anything.
    pub(super) fn visit_queries(
        &mut self,
        index: &[i32],
        rows: &TokenRows,
        stats: &[f32],
        first_row: usize,
        q_zero: i32,
        #[comptime] tile: Tile,
    ) {
        sync_cube();
        if UNIT_POS < comptime!(self.size.visited as u32) {
            let mut token = rows.token(index, UNIT_POS, tile);
            if token != NONE {
                // Below any lse that is not minus infinity.
                if stats[first_row + usize::cast_from(token - q_zero)] < f32::MIN {
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
        tensor: &VectorTensor<E, N>,
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
        tensor: &VectorTensor<E, N>,
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
    pub(super) fn stage_owned<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        tensor: &VectorTensor<E, N>,
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
    pub(super) fn stage_visited<E: Float>(
        &mut self,
        #[comptime] operand: usize,
        tensor: &VectorTensor<E, N>,
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
}
