//! Tiles of rows in shared memory, in chunks of 16 bytes.
//!
//! Rows are padded with zeros to a multiple of 16 elements, the depth of a tensor core's product. Chunks are swizzled
//! within a row, so that eight rows read at the same column touch all banks once.

use cubecl::prelude::*;

use super::intrinsics::{copies_done, copy_chunk, shared_address};
use super::products::Products;
use super::wmma;
use crate::cube::rows::HeadRows;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::NONE;

/// Elements of a chunk.
pub(in crate::cube) const LANES: usize = 8;

/// Chunks of a row of `dim` elements.
pub(in crate::cube) fn chunks(dim: usize) -> usize {
    dim.div_ceil(2 * LANES) * 2
}

/// Elements of a row of `dim`, with padding.
pub(in crate::cube) fn padded(dim: usize) -> usize {
    chunks(dim) * LANES
}

/// Chunks that a unit moves of `rows` rows.
fn moved(rows: usize, dim: usize, units: usize) -> usize {
    (rows * chunks(dim)).div_ceil(units)
}

/// Neighbouring chunks among which those of a row are swizzled.
pub(super) fn swizzled(chunks: usize) -> usize {
    1 << chunks.trailing_zeros().min(3)
}

/// A tile of `rows` rows of `dim` elements, which `units` units move, with asynchronous copies or through registers.
#[derive(CubeType)]
pub(in crate::cube) struct Stage<E: Float, N: Size> {
    pub(super) chunks: Shared<[Vector<E, N>]>,
    /// Its address, where copies are asynchronous.
    pub(super) address: u32,
    #[cube(comptime)]
    rows: usize,
    #[cube(comptime)]
    pub(super) dim: usize,
    #[cube(comptime)]
    units: usize,
    #[cube(comptime)]
    pub(super) asynchronous: bool,
    #[cube(comptime)]
    pub(super) products: Products,
}

#[cube]
pub(in crate::cube) fn stage<E: Float, N: Size>(
    #[comptime] rows: usize,
    #[comptime] dim: usize,
    #[comptime] units: usize,
    #[comptime] asynchronous: bool,
    #[comptime] products: Products,
) -> Stage<E, N> {
    let chunks =
        Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(rows * chunks(dim)), 128usize);
    let mut address = 0u32.runtime();
    if comptime!(asynchronous) {
        address = shared_address(&chunks[0usize..1usize]);
    }
    Stage::<E, N> {
        chunks,
        address,
        rows,
        dim,
        units,
        asynchronous,
        products,
    }
}

/// Waits for all that units of the cube have begun.
#[cube]
pub(super) fn arrive(#[comptime] asynchronous: bool) {
    if comptime!(asynchronous) {
        copies_done();
    }
    sync_cube();
}

/// Where a chunk is.
#[cube]
pub(super) fn place(row: usize, chunk: usize, #[comptime] chunks: usize) -> usize {
    let among = comptime!(swizzled(chunks));
    row * chunks + (chunk ^ swizzle(row, among))
}

/// What the chunks of a row are swizzled by, among `among` neighbours.
#[cube]
pub(super) fn swizzle(row: usize, #[comptime] among: usize) -> usize {
    row / comptime!(8 / among) % among
}

/// A chunk that a unit moves.
#[derive(CubeType)]
struct Moved {
    row: usize,
    /// Its place in its row.
    chunk: usize,
    /// Where it is in a tile.
    place: usize,
}

/// The `n`-th chunk that this unit moves of rows of `dim` elements.
#[cube]
fn moved_chunk(#[comptime] n: usize, #[comptime] dim: usize, #[comptime] units: usize) -> Moved {
    let width = comptime!(chunks(dim));
    if comptime!(units % (8 * width) == 0) {
        // The same chunk of every so many rows, swizzled alike.
        let (row, chunk) = (UNIT_POS as usize / width, UNIT_POS as usize % width);
        Moved {
            row: row + comptime!(n * units / width),
            chunk,
            place: place(row, chunk, width) + comptime!(n * units),
        }
    } else {
        let at = UNIT_POS as usize + comptime!(n * units);
        let (row, chunk) = (at / width, at % width);
        Moved {
            row,
            chunk,
            place: place(row, chunk, width),
        }
    }
}

#[cube]
impl<E: Float, N: Size> Stage<E, N> {
    /// What this unit moves of rows of `dim` elements, from global memory: to row `i` from that of `tokens[first + i]`.
    ///
    /// Zeros for [`NONE`], from token `end` on, and beyond the row.
    #[allow(clippy::too_many_arguments)]
    fn fetch(
        &self,
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        first: usize,
        end: i32,
        #[comptime] tile_rows: usize,
        #[comptime] dim: usize,
    ) -> Array<Vector<E, N>> {
        let (width, units) = comptime!((self.dim, self.units));
        let count = comptime!(moved(tile_rows, width, units));
        let mut values = Array::<Vector<E, N>>::new(count);
        #[unroll]
        for n in 0..count {
            let moved = moved_chunk(n, width, units);
            let mut value = Vector::<E, N>::cast_from(0.0f32);
            if comptime!(self.products == Products::Wmma && tile_rows * chunks(width) % units == 0)
            {
                let token = tokens[first + moved.row];
                value = wmma::read::<E, N>(tensor, rows, token, end, moved.chunk, width, dim);
            } else if (comptime!((n + 1) * units <= tile_rows * chunks(width))
                || moved.row < tile_rows)
                && (comptime!(chunks(width) * LANES == dim) || moved.chunk < comptime!(dim / LANES))
            {
                let token = tokens[first + moved.row];
                if token != NONE && token < end {
                    value = tensor.vectors[rows.at(token) + moved.chunk];
                }
            }
            values[n] = value;
        }
        values
    }

    /// Puts the chunks that this unit moves in the rows from `at` on.
    fn put(&mut self, values: &Array<Vector<E, N>>, at: usize, #[comptime] rows: usize) {
        let (width, units) = comptime!((self.dim, self.units));
        #[unroll]
        for n in 0..comptime!(moved(rows, width, units)) {
            let moved = moved_chunk(n, width, units);
            if comptime!((n + 1) * units <= rows * chunks(width)) || moved.row < rows {
                self.chunks[at * comptime!(chunks(width)) + moved.place] = values[n];
            }
        }
    }

    /// As [`Stage::fetch`] and [`Stage::put`], on its way until [`copies_done`](super::intrinsics::copies_done).
    #[allow(clippy::too_many_arguments)]
    fn copy(
        &mut self,
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        first: usize,
        end: i32,
        at: usize,
        #[comptime] tile_rows: usize,
        #[comptime] dim: usize,
    ) {
        let (width, units) = comptime!((self.dim, self.units));
        #[unroll]
        for n in 0..comptime!(moved(tile_rows, width, units)) {
            let moved = moved_chunk(n, width, units);
            if comptime!((n + 1) * units <= tile_rows * chunks(width)) || moved.row < tile_rows {
                let token = tokens[first + moved.row];
                let mut there = token != NONE && token < end;
                let mut chunk = moved.chunk;
                if comptime!(chunks(width) * LANES != dim) {
                    there = there && chunk < comptime!(dim / LANES);
                    chunk = min(chunk, comptime!(dim / LANES - 1));
                }
                // Where nothing is to be copied the first row stands for it, of which no byte is read.
                let from = rows.at(max(token, rows.start)) + chunk;
                let to = at * comptime!(chunks(width)) + moved.place;
                copy_chunk(
                    &tensor.vectors[from..from + 1usize],
                    self.address + to as u32 * 16u32,
                    select(there, 16u32, 0u32),
                );
            }
        }
    }

    /// Begins to move `count` rows of `tensor` to the rows from `at` on: those of `tokens` from `first` on, zeros for
    /// [`NONE`], from token `end` on, and beyond `dim`. [`Stage::finish`] ends it.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::cube) fn begin(
        &mut self,
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        first: usize,
        end: i32,
        at: usize,
        #[comptime] count: usize,
        #[comptime] dim: usize,
    ) -> Array<Vector<E, N>> {
        if comptime!(self.asynchronous) {
            self.copy(tensor, rows, tokens, first, end, at, count, dim);
            Array::<Vector<E, N>>::new(1usize)
        } else {
            self.fetch(tensor, rows, tokens, first, end, count, dim)
        }
    }

    /// Ends what [`Stage::begin`] began, but for [`arrive`].
    pub(in crate::cube) fn finish(
        &mut self,
        values: &Array<Vector<E, N>>,
        at: usize,
        #[comptime] count: usize,
    ) {
        if comptime!(!self.asynchronous) {
            self.put(values, at, count);
        }
    }

    /// Moves the rows of the first `count` of `tokens` to the first rows, as [`Stage::begin`] says. They are there
    /// after [`arrive`].
    #[allow(clippy::too_many_arguments)]
    pub(in crate::cube) fn fill(
        &mut self,
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        end: i32,
        #[comptime] count: usize,
        #[comptime] dim: usize,
    ) {
        let values = self.begin(tensor, rows, tokens, 0usize, end, 0usize, count, dim);
        self.finish(&values, 0usize, count);
    }

    /// Changes the sign of all elements, which have been moved by the units that change them.
    pub(in crate::cube) fn negate(&mut self) {
        let (width, units) = comptime!((self.dim, self.units));
        #[unroll]
        for n in 0..comptime!(moved(self.rows, width, units)) {
            let moved = moved_chunk(n, width, units);
            if moved.row < self.rows {
                self.chunks[moved.place] *= Vector::cast_from(-1.0f32);
            }
        }
    }

    /// Writes rows of `dim` elements to those of `tensor` that have a token.
    pub(in crate::cube) fn store(
        &self,
        tensor: &mut VectorTensor<E, N>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        #[comptime] dim: usize,
    ) {
        let (width, tile_rows, units) = comptime!((self.dim, self.rows, self.units));
        #[unroll]
        for n in 0..comptime!(moved(tile_rows, width, units)) {
            let moved = moved_chunk(n, width, units);
            if moved.row < tile_rows && moved.chunk < comptime!(dim / LANES) {
                let token = tokens[moved.row];
                if token != NONE {
                    tensor.vectors[rows.at(token) + moved.chunk] = self.chunks[moved.place];
                }
            }
        }
    }
}
