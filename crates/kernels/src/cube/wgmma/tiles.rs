//! Tiles of rows in shared memory, as products of four planes read them.
//!
//! A tile has columns of 64 elements, one after another, and a column has the rows' 128 bytes one after another: eight chunks of
//! 16 bytes, swizzled by the row. Rows are padded with zeros to a multiple of 16 elements, the depth of a product.

use cubecl::prelude::*;

use super::instructions::{copy_all, copy_some};
use crate::cube::mma::fragments::Pair;
use crate::cube::mma::intrinsics::{load_matrices, shared_address};
use crate::cube::mma::stage::{LANES, chunks, padded};
use crate::cube::rows::HeadRows;
use crate::cube::walk::NONE;

/// Bytes of 8 rows of a column.
pub(super) const EIGHT_ROWS: usize = 1024;

/// Chunks of a row of `dim` elements, with those between its end and the next column.
pub(super) fn row_chunks(dim: usize) -> usize {
    dim.next_multiple_of(64) / LANES
}

/// Bytes from the first elements `16 * k ..` of a tile of `rows` rows to these.
pub(super) fn depth(k: usize, rows: usize) -> usize {
    k / 4 * rows * 128 + k % 4 * 32
}

/// One or more tiles.
#[derive(CubeType)]
pub(super) struct Tiles<E: Float, N: Size> {
    chunks: Shared<[Vector<E, N>]>,
    address: u32,
    /// Rows of a tile.
    #[cube(comptime)]
    pub(super) rows: usize,
    /// Elements of a row.
    #[cube(comptime)]
    dim: usize,
    /// With padding.
    #[cube(comptime)]
    pub(super) depth: usize,
    /// Chunks of a tile.
    #[cube(comptime)]
    size: usize,
}

/// `count` tiles of `rows` rows, with place for `widest` elements a row.
#[cube]
pub(super) fn tiles<E: Float, N: Size>(
    #[comptime] count: usize,
    #[comptime] rows: usize,
    #[comptime] dim: usize,
    #[comptime] widest: usize,
) -> Tiles<E, N> {
    let size = comptime!(rows * row_chunks(widest));
    let chunks = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime!(count * size), EIGHT_ROWS);
    let address = shared_address(&chunks[0usize..1usize]);
    Tiles::<E, N> {
        chunks,
        address,
        rows,
        dim,
        depth: comptime!(padded(dim)),
        size,
    }
}

/// How instructions find rows, the lower half: where they begin, and bytes from a column to the next.
#[cube]
fn descriptor(address: u32, #[comptime] columns: usize) -> u32 {
    ((address & 0x3FFFFu32) >> 4u32) | comptime!((columns as u32 >> 4) << 16)
}

/// The upper half: bytes from 8 rows to the next, and that chunks are swizzled among 8.
pub(super) const DESCRIPTOR: usize = (EIGHT_ROWS >> 4) | (1 << 30);

/// Where a chunk of a row is in a tile of `rows` rows.
#[cube]
fn place(row: usize, chunk: usize, #[comptime] rows: usize) -> usize {
    (chunk / 8usize) * comptime!(rows * 8) + row * 8usize + ((chunk % 8usize) ^ (row % 8usize))
}

/// The `n`-th chunk that unit `unit` of `units` moves, of rows of `width` chunks.
#[cube]
fn moved(
    unit: usize,
    #[comptime] n: usize,
    #[comptime] units: usize,
    #[comptime] width: usize,
) -> (usize, usize) {
    if comptime!(units % width == 0) {
        (unit / width + comptime!(n * (units / width)), unit % width)
    } else {
        let at = unit + comptime!(n * units);
        (at / width, at % width)
    }
}

/// A chunk of a row of `dim` elements: the last one where it is padding, of which no byte is read.
#[cube]
fn within(chunk: usize, #[comptime] dim: usize) -> usize {
    let last = comptime!(dim / LANES - 1);
    if comptime!(chunks(dim) == last + 1) {
        chunk
    } else {
        min(chunk, last)
    }
}

/// How many of the chunks that a unit moves are swizzled each in a way of its own: those after them are as many whole eights of
/// rows further.
fn ways(units: usize, width: usize, count: usize) -> usize {
    let rows = units / width;
    match units % width {
        0 if 8 % rows == 0 => 8 / rows,
        0 if rows % 8 == 0 => 1,
        _ => count,
    }
}

/// Bytes from the chunk of the same way to the `n`-th that a unit moves.
fn further(n: usize, ways: usize, units: usize, width: usize) -> usize {
    n / ways * ways * (units / width) * 128
}

/// Addresses of the first chunks that a unit moves to the tile at `to`.
#[cube]
fn addresses(
    to: u32,
    unit: usize,
    #[comptime] ways: usize,
    #[comptime] units: usize,
    #[comptime] width: usize,
    #[comptime] rows: usize,
) -> Array<u32> {
    let mut addresses = Array::<u32>::new(ways);
    #[unroll]
    for n in 0..ways {
        let (row, chunk) = moved(unit, n, units, width);
        addresses[n] = to + place(row, chunk, rows) as u32 * 16u32;
    }
    addresses
}

#[cube]
impl<E: Float, N: Size> Tiles<E, N> {
    /// The rows of a tile from `row` on, a multiple of 8, as an operand whose depth is the width of the rows.
    pub(super) fn rows_at(&self, tile: u32, row: u32) -> u32 {
        descriptor(self.tile_address(tile) + row * 128u32, 16usize)
    }

    /// The rows of a tile as a right operand whose depth they are.
    pub(super) fn columns_at(&self, tile: u32) -> u32 {
        descriptor(self.tile_address(tile), comptime!(self.rows * 128))
    }

    /// The rows of a tile from `first` on, 16 of them, as a left operand that the units of a plane hold: 16 elements a step.
    pub(super) fn held(&self, tile: u32, first: usize) -> Array<Vector<u32, Const<4>>> {
        let (rows, steps) = comptime!((self.rows, self.depth / 16));
        let (row, half) = (
            first + UNIT_POS as usize % 16usize,
            UNIT_POS as usize % 32usize / 16usize,
        );
        let to = self.tile_address(tile);
        let mut held = Array::<Vector<u32, Const<4>>>::new(steps);
        #[unroll]
        for step in 0..steps {
            let chunk = place(row, comptime!(2 * step) + half, rows);
            held[step] = load_matrices(to + chunk as u32 * 16u32, 0usize, false);
        }
        held
    }

    fn tile_address(&self, tile: u32) -> u32 {
        self.address + tile * comptime!((self.size * 16) as u32)
    }

    /// Begins to copy rows of `tensor` to a tile, by units `0 .. units` of which this is `unit`: those of `tokens` from `first` on,
    /// zeros for [`NONE`] and from token `end` on.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn copy(
        &self,
        tile: u32,
        tensor: &Tensor<Vector<E, N>>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        first: usize,
        end: i32,
        unit: usize,
        #[comptime] units: usize,
    ) {
        let (count, dim, width) = comptime!((self.rows, self.dim, chunks(self.dim)));
        let moves = comptime!((count * width).div_ceil(units));
        let ways = comptime!(ways(units, width, moves));
        let to = addresses(self.tile_address(tile), unit, ways, units, width, count);
        #[unroll]
        for n in 0..moves {
            let (row, chunk) = moved(unit, n, units, width);
            if comptime!((n + 1) * units <= count * width) || row < count {
                let token = tokens[first + row];
                let mut there = token != NONE && token < end;
                if comptime!(width * LANES != dim) {
                    there = there && chunk < comptime!(dim / LANES);
                }
                // Where nothing is to be copied the first row stands for it, of which no byte is read.
                let from = rows.at(max(token, rows.start)) + within(chunk, dim);
                copy_some(
                    &tensor[from..from + 1usize],
                    to[comptime!(n % ways)],
                    select(there, 16u32, 0u32),
                    comptime!(further(n, ways, units, width)),
                );
            }
        }
    }

    /// As [`Self::copy`], of the rows of tokens that follow each other from `first` on, all of which there are.
    pub(super) fn copy_whole(
        &self,
        tile: u32,
        tensor: &Tensor<Vector<E, N>>,
        rows: &HeadRows,
        first: i32,
        unit: usize,
        #[comptime] units: usize,
    ) {
        let (count, dim, width) = comptime!((self.rows, self.dim, chunks(self.dim)));
        let moves = comptime!((count * width).div_ceil(units));
        let ways = comptime!(ways(units, width, moves));
        let to = addresses(self.tile_address(tile), unit, ways, units, width, count);
        let (row, chunk) = moved(unit, 0usize, units, width);
        let mut from = rows.at(first) + row * rows.stride + within(chunk, dim);
        #[unroll]
        for n in 0..moves {
            let (row, chunk) = moved(unit, n, units, width);
            if comptime!(units % width != 0) {
                from = rows.at(first) + row * rows.stride + within(chunk, dim);
            }
            if comptime!((n + 1) * units <= count * width) || row < count {
                let to = to[comptime!(n % ways)];
                let further = comptime!(further(n, ways, units, width));
                if comptime!(width * LANES == dim) {
                    copy_all(&tensor[from..from + 1usize], to, further);
                } else {
                    // What follows the row may be anything, or beyond the tensor.
                    let there = chunk < comptime!(dim / LANES);
                    copy_some(
                        &tensor[from..from + 1usize],
                        to,
                        select(there, 16u32, 0u32),
                        further,
                    );
                }
            }
            from += comptime!(units / width) * rows.stride;
        }
    }

    /// The first chunk of a tile.
    fn first_chunk(&self, tile: u32) -> usize {
        tile as usize * comptime!(self.size)
    }

    /// Changes the sign of all elements of `count` rows of a tile, from `first` on.
    pub(super) fn negate(
        &mut self,
        tile: u32,
        first: usize,
        unit: usize,
        #[comptime] units: usize,
        #[comptime] count: usize,
    ) {
        let (rows, width) = comptime!((self.rows, chunks(self.dim)));
        let at = self.first_chunk(tile);
        #[unroll]
        for n in 0..comptime!((count * width).div_ceil(units)) {
            let (row, chunk) = moved(unit, n, units, width);
            if row < count {
                self.chunks[at + place(first + row, chunk, rows)] *= Vector::cast_from(-1.0f32);
            }
        }
    }

    /// Puts the sums of a product of `tiles` tiles of 8 columns, rounded, in two rows of a tile: `row` and the eighth after it.
    pub(super) fn put_sums(
        &mut self,
        tile: u32,
        sums: &Array<Pair<f32>>,
        row: usize,
        #[comptime] tiles: usize,
    ) {
        let count = comptime!(self.rows);
        let first = self.first_chunk(tile);
        let pairs = self
            .chunks
            .as_mut_slice()
            .with_vector_size_mut::<Const<2>>();
        #[unroll]
        for n in 0..comptime!(2 * tiles) {
            let row = row + comptime!(n % 2 * 8);
            let at = first + place(row, comptime!(n / 2), count);
            pairs[at * 4usize + UNIT_POS as usize % 4usize] = Vector::cast_from(sums[n]);
        }
    }

    /// Writes `count` rows of a tile, of `dim` elements from row `first` on, to those of `tensor` that have a token: of `tokens`
    /// from `tokens_at` on, those of the tile.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn store(
        &self,
        tile: u32,
        tensor: &mut Tensor<Vector<E, N>>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        tokens_at: usize,
        first: usize,
        unit: usize,
        #[comptime] units: usize,
        #[comptime] count: usize,
        #[comptime] dim: usize,
    ) {
        let (tile_rows, width) = comptime!((self.rows, chunks(dim)));
        let at = self.first_chunk(tile);
        #[unroll]
        for n in 0..comptime!((count * width).div_ceil(units)) {
            let (row, chunk) = moved(unit, n, units, width);
            if row < count && chunk < comptime!(dim / LANES) {
                let token = tokens[tokens_at + first + row];
                if token != NONE {
                    tensor[rows.at(token) + chunk] =
                        self.chunks[at + place(first + row, chunk, tile_rows)];
                }
            }
        }
    }
}
