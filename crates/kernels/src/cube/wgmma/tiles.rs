//! Tiles of rows in shared memory, as products of four planes read them.
//!
//! A tile has columns of 64 elements, one after another, and a column has the rows' 128 bytes one after another: eight chunks of
//! 16 bytes, swizzled by the row. Rows are padded with zeros to a multiple of 16 elements, the depth of a product.

use cubecl::prelude::*;

use super::instructions::{copy_all, copy_some, store_matrices};
use crate::cube::mma::fragments::Pair;
use crate::cube::mma::intrinsics::{load_matrices, shared_address};
use crate::cube::mma::stage::{LANES, chunks, padded};
use crate::cube::rows::HeadRows;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::NONE;

/// Chunks of a column.
const COLUMN: usize = 8;

/// Bytes of 8 rows of a column.
pub(super) const EIGHT_ROWS: usize = 1024;

/// Whether `units` units can move `count` whole rows of `dim` elements, as many at a time.
pub(super) fn moves_whole(count: usize, dim: usize, units: usize) -> bool {
    let width = chunks(dim);
    width == dim / LANES && units.is_multiple_of(width) && count.is_multiple_of(units / width)
}

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

/// Columns of `dim` elements all of which there are, and of how many chunks units move those after them, padding among them.
fn columns(dim: usize) -> (usize, usize) {
    let full = dim / (COLUMN * LANES);
    match chunks(dim) - full * COLUMN {
        0 => (full, 0),
        // As many units as these move a row.
        rest => (full, rest.next_power_of_two()),
    }
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
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        first: usize,
        end: i32,
        unit: usize,
        #[comptime] units: usize,
    ) {
        let (full, rest) = comptime!(columns(self.dim));
        if comptime!(full > 0) {
            self.copy_columns(
                tile, tensor, rows, tokens, first, end, unit, units, 0usize, full, COLUMN,
            );
        }
        if comptime!(rest > 0) {
            self.copy_columns(
                tile, tensor, rows, tokens, first, end, unit, units, full, 1usize, rest,
            );
        }
    }

    /// As [`Self::copy`], of `columns` columns from `column` on, by `width` units a row.
    #[allow(clippy::too_many_arguments)]
    fn copy_columns(
        &self,
        tile: u32,
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        tokens: &Shared<[i32]>,
        first: usize,
        end: i32,
        unit: usize,
        #[comptime] units: usize,
        #[comptime] column: usize,
        #[comptime] columns: usize,
        #[comptime] width: usize,
    ) {
        let (count, last) = comptime!((self.rows, self.dim / LANES - 1));
        let at_a_time = comptime!(units / width);
        let (row, chunk) = (unit / width, comptime!(column * COLUMN) + unit % width);
        let to = self.tile_address(tile) + place(row, chunk, count) as u32 * 16u32;
        let of_row =
            comptime!(column * COLUMN + columns * width <= last + 1).runtime() || chunk <= last;
        let chunk = min(chunk, last);
        #[unroll]
        for n in 0..comptime!(count.div_ceil(at_a_time)) {
            let row = row + comptime!(n * at_a_time);
            if comptime!((n + 1) * at_a_time <= count) || row < count {
                let token = tokens[first + row];
                let there = token != NONE && token < end && of_row;
                // Where nothing is to be copied the first row stands for it, of which no byte is read.
                let from = rows.at(max(token, rows.start)) + chunk;
                let bytes = select(there, 16u32, 0u32);
                let source = &tensor.vectors[from..from + 1usize];
                #[unroll]
                for c in 0..columns {
                    let further = comptime!((n * at_a_time + c * count) * 128);
                    copy_some(source, comptime!(c * COLUMN * 16), to, bytes, further);
                }
            }
        }
    }

    /// As [`Self::copy`], of the rows of tokens that follow each other from `first` on, all of which there are.
    pub(super) fn copy_whole(
        &self,
        tile: u32,
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        first: i32,
        unit: usize,
        #[comptime] units: usize,
    ) {
        let (full, rest) = comptime!(columns(self.dim));
        if comptime!(full > 0) {
            self.copy_whole_columns(tile, tensor, rows, first, unit, units, 0usize, full, COLUMN);
        }
        if comptime!(rest > 0) {
            self.copy_whole_columns(tile, tensor, rows, first, unit, units, full, 1usize, rest);
        }
    }

    /// As [`Self::copy_whole`], of `columns` columns from `column` on, by `width` units a row.
    #[allow(clippy::too_many_arguments)]
    fn copy_whole_columns(
        &self,
        tile: u32,
        tensor: &VectorTensor<E, N>,
        rows: &HeadRows,
        first: i32,
        unit: usize,
        #[comptime] units: usize,
        #[comptime] column: usize,
        #[comptime] columns: usize,
        #[comptime] width: usize,
    ) {
        let (count, last) = comptime!((self.rows, self.dim / LANES - 1));
        let at_a_time = comptime!(units / width);
        let (row, chunk) = (unit / width, comptime!(column * COLUMN) + unit % width);
        let to = self.tile_address(tile) + place(row, chunk, count) as u32 * 16u32;
        let mut from = rows.at(first) + row * rows.stride + min(chunk, last);
        #[unroll]
        for n in 0..comptime!(count.div_ceil(at_a_time)) {
            if comptime!((n + 1) * at_a_time <= count) || row + comptime!(n * at_a_time) < count {
                let source = &tensor.vectors[from..from + 1usize];
                #[unroll]
                for c in 0..columns {
                    let further = comptime!((n * at_a_time + c * count) * 128);
                    let beyond = comptime!(c * COLUMN * 16);
                    if comptime!(column * COLUMN + columns * width <= last + 1) {
                        copy_all(source, beyond, to, further);
                    } else {
                        // What follows the row may be anything, or beyond the tensor.
                        let bytes = select(chunk <= last, 16u32, 0u32);
                        copy_some(source, beyond, to, bytes, further);
                    }
                }
            }
            from += at_a_time * rows.stride;
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

    /// Puts the sums of a product of `tiles` tiles of 8 columns, an even number, rounded, in 16 rows of a tile: those of the plane, whose units call
    /// their first `row`, and it alone, by different numbers.
    pub(super) fn put_sums(
        &mut self,
        tile: u32,
        sums: &Array<Pair<f32>>,
        row: usize,
        #[comptime] tiles: usize,
    ) {
        let count = comptime!(self.rows);
        let unit = UNIT_POS % 32u32;
        // This unit has the address of one of the 16 rows, and of one of two columns of tiles.
        let row = plane_broadcast(row as u32, 0u32) + unit % 16u32;
        let of_row = self.tile_address(tile) + row * 128u32;
        let swizzled = (unit / 16u32) ^ (row % 8u32);
        #[unroll]
        for two in 0..comptime!(tiles / 2) {
            let first = comptime!(2 * two);
            let to = of_row + (swizzled ^ comptime!((first % COLUMN) as u32)) * 16u32;
            let mut words = Array::<u32>::new(4usize);
            #[unroll]
            for r in 0..4usize {
                let rounded = Vector::<E, Const<2>>::cast_from(sums[comptime!(2 * first + r)]);
                words[r] = u32::reinterpret(rounded);
            }
            store_matrices(
                to,
                words[0usize],
                words[1usize],
                words[2usize],
                words[3usize],
                comptime!(first / COLUMN * count * 128),
            );
        }
    }

    /// As [`Self::store`], of rows of tokens that follow each other from `first_token` on, all of which there are.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn store_whole(
        &self,
        tile: u32,
        tensor: &mut VectorTensor<E, N>,
        rows: &HeadRows,
        first_token: i32,
        first: usize,
        unit: usize,
        #[comptime] units: usize,
        #[comptime] count: usize,
        #[comptime] dim: usize,
    ) {
        let (tile_rows, width) = comptime!((self.rows, chunks(dim)));
        let at_a_time = comptime!(units / width);
        let at = self.first_chunk(tile);
        let (row, chunk) = (unit / width, unit % width);
        let mut to = rows.at(first_token) + row * rows.stride + chunk;
        #[unroll]
        for n in 0..comptime!(count / at_a_time) {
            let row = first + row + comptime!(n * at_a_time);
            tensor.vectors[to] = self.chunks[at + place(row, chunk, tile_rows)];
            to += at_a_time * rows.stride;
        }
    }

    /// Writes `count` rows of a tile, of `dim` elements from row `first` on, to those of `tensor` that have a token: of `tokens`
    /// from `tokens_at` on, those of the tile.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn store(
        &self,
        tile: u32,
        tensor: &mut VectorTensor<E, N>,
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
                    tensor.vectors[rows.at(token) + chunk] =
                        self.chunks[at + place(first + row, chunk, tile_rows)];
                }
            }
        }
    }
}
