//! Tiles of rows in shared memory, in chunks of 16 bytes.
//!
//! Rows are padded with zeros to a multiple of 16 elements, the depth of a tensor core's product. Chunks are swizzled
//! within a row, so that eight rows read at the same column touch all banks once.

use cubecl::prelude::*;

use super::fragments::{Pair, definition, pair_row};
use super::intrinsics::{copies_done, copy_chunk, load_matrices, shared_address};
use crate::cube::rows::HeadRows;
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
fn swizzled(chunks: usize) -> usize {
    1 << chunks.trailing_zeros().min(3)
}

/// A tile of `rows` rows of `dim` elements, which `units` units move, with asynchronous copies or through registers.
#[derive(CubeType)]
pub(in crate::cube) struct Stage<E: Float, N: Size> {
    chunks: Shared<[Vector<E, N>]>,
    /// Its address, where copies are asynchronous.
    address: u32,
    #[cube(comptime)]
    rows: usize,
    #[cube(comptime)]
    dim: usize,
    #[cube(comptime)]
    units: usize,
    #[cube(comptime)]
    asynchronous: bool,
}

#[cube]
pub(in crate::cube) fn stage<E: Float, N: Size>(
    #[comptime] rows: usize,
    #[comptime] dim: usize,
    #[comptime] units: usize,
    #[comptime] asynchronous: bool,
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
fn place(row: usize, chunk: usize, #[comptime] chunks: usize) -> usize {
    let among = comptime!(swizzled(chunks));
    row * chunks + (chunk ^ swizzle(row, among))
}

/// Where row `first + row` and chunk `2 * pair + half` are, with `first` a multiple of 8, less [`operand_offset`]: the same
/// for all tiles, and but for a bit or two for all pairs.
#[cube]
fn operand_place(
    first: usize,
    row: usize,
    half: usize,
    #[comptime] pair: usize,
    #[comptime] chunks: usize,
) -> usize {
    let among = comptime!(swizzled(chunks));
    (first + row) * chunks + (swizzle(row, among) ^ half ^ comptime!(2 * pair % among))
}

/// The rest of the way, to rows `16 * tile` further.
fn operand_offset(pair: usize, tile: usize, chunks: usize) -> usize {
    let among = swizzled(chunks);
    16 * tile * chunks + 2 * pair / among * among
}

/// What the chunks of a row are swizzled by, among `among` neighbours.
#[cube]
fn swizzle(row: usize, #[comptime] among: usize) -> usize {
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
        tensor: &Tensor<Vector<E, N>>,
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
            if (comptime!((n + 1) * units <= tile_rows * chunks(width)) || moved.row < tile_rows)
                && (comptime!(chunks(width) * LANES == dim) || moved.chunk < comptime!(dim / LANES))
            {
                let token = tokens[first + moved.row];
                if token != NONE && token < end {
                    value = tensor[rows.at(token) + moved.chunk];
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
        tensor: &Tensor<Vector<E, N>>,
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
                    &tensor[from..from + 1usize],
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
        tensor: &Tensor<Vector<E, N>>,
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
        tensor: &Tensor<Vector<E, N>>,
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

    /// Rows `16 * tile ..` and elements `16 * k ..` as the left operand of a product.
    pub(in crate::cube) fn left(&self, tile: usize, #[comptime] k: usize) -> Array<Pair<E>> {
        let lane = UNIT_POS as usize % 32usize;
        let width = comptime!(chunks(self.dim));
        let at = operand_place(tile * 16usize, lane % 16usize, lane / 16usize, k, width);
        let offset = comptime!(operand_offset(k, 0, width));
        self.load(at, offset, cmma::MatrixIdent::A, false)
    }

    /// Rows `first + 16 * n ..` as columns and elements `16 * k ..` as depth: two right operands of a product with this
    /// transposed.
    pub(in crate::cube) fn right_transposed(
        &self,
        first: usize,
        #[comptime] n: usize,
        #[comptime] k: usize,
    ) -> Array<Pair<E>> {
        let lane = UNIT_POS as usize % 32usize;
        let width = comptime!(chunks(self.dim));
        let row = lane / 16usize * 8usize + lane % 8usize;
        let at = operand_place(first, row, lane / 8usize % 2usize, k, width);
        self.load(
            at,
            comptime!(operand_offset(k, n, width)),
            cmma::MatrixIdent::B,
            false,
        )
    }

    /// Elements `16 * n ..` as columns and rows `first + 16 * k ..` as depth: two right operands of a product with this.
    pub(in crate::cube) fn right(
        &self,
        first: usize,
        #[comptime] n: usize,
        #[comptime] k: usize,
    ) -> Array<Pair<E>> {
        let lane = UNIT_POS as usize % 32usize;
        let width = comptime!(chunks(self.dim));
        let at = operand_place(first, lane % 16usize, lane / 16usize, n, width);
        self.load(
            at,
            comptime!(operand_offset(n, k, width)),
            cmma::MatrixIdent::B,
            true,
        )
    }

    /// Four matrices of `8 x 8`, of which this unit's address is that of a row.
    fn load(
        &self,
        at: usize,
        #[comptime] offset: usize,
        #[comptime] ident: cmma::MatrixIdent,
        #[comptime] transpose: bool,
    ) -> Array<Pair<E>> {
        if comptime!(self.asynchronous) {
            let address = self.address + at as u32 * 16u32;
            let matrices = load_matrices(address, comptime!(16 * offset), transpose);
            let mut pairs = Array::<Pair<E>>::new(4usize);
            #[unroll]
            for r in 0..4usize {
                pairs[r] = Pair::<E>::reinterpret(matrices.extract(r));
            }
            pairs
        } else {
            let at = at + offset;
            definition::<E>().load_matrix::<Vector<E, N>, Const<2>>(
                &self.chunks[at..at + 1usize],
                ident,
                4usize,
                transpose,
            )
        }
    }

    /// Puts the sums of a product, rounded, in the rows of this plane.
    pub(in crate::cube) fn put_sums(
        &mut self,
        sums: &Array<Pair<f32>>,
        #[comptime] tiles: usize,
        #[comptime] parts: usize,
    ) {
        let width = comptime!(chunks(self.dim));
        let pairs = self
            .chunks
            .as_mut_slice()
            .with_vector_size_mut::<Const<2>>();
        #[unroll]
        for half in 0..comptime!(2 * parts) {
            let row = pair_row(half, parts) as usize;
            #[unroll]
            for tile in 0..tiles {
                let at = place(row, tile, width) * 4usize + UNIT_POS as usize % 4usize;
                let n = comptime!(2 * (half / 2 * tiles + tile) + half % 2);
                pairs[at] = Vector::cast_from(sums[n]);
            }
        }
    }

    /// Writes rows of `dim` elements to those of `tensor` that have a token.
    pub(in crate::cube) fn store(
        &self,
        tensor: &mut Tensor<Vector<E, N>>,
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
                    tensor[rows.at(token) + moved.chunk] = self.chunks[moved.place];
                }
            }
        }
    }
}
