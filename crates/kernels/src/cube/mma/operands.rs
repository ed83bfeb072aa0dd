//! Operands of products, read from tiles in shared memory, and results that are put there.

use cubecl::prelude::*;

use super::fragments::{Pair, definition};
use super::intrinsics::load_matrices;
use super::products::{Products, own_row};
use super::stage::{LANES, Stage, StageExpand, chunks, place, swizzle, swizzled};
use super::wmma;

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

/// The way from chunk 0 or 1 of a row that is a multiple of 8 to chunk `2 * pair` or the next of row `16 * tile + row` after it:
/// whether the two change places, and the rest.
fn row_offset(row: usize, pair: usize, tile: usize, chunks: usize) -> (usize, usize) {
    let among = swizzled(chunks);
    let swizzle = (row * among / 8 % among) ^ (2 * pair % among);
    let offset = row * chunks + swizzle / 2 * 2 + operand_offset(pair, tile, chunks);
    (swizzle % 2, offset)
}

#[cube]
impl<E: Float, N: Size> Stage<E, N> {
    /// Rows `16 * tile ..` and elements `16 * k ..` as the left operand of a product.
    pub(super) fn left(&self, tile: usize, #[comptime] k: usize) -> Array<Pair<E>> {
        let lane = UNIT_POS as usize % 32usize;
        let width = comptime!(chunks(self.dim));
        let at = operand_place(tile * 16usize, lane % 16usize, lane / 16usize, k, width);
        let offset = comptime!(operand_offset(k, 0, width));
        self.load(at, offset, cmma::MatrixIdent::A, false)
    }

    /// Rows `first + 16 * n ..` as columns and elements `16 * k ..` as depth: two right operands of a product with this
    /// transposed.
    pub(super) fn right_transposed(
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
    pub(super) fn right(
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

    /// Row `first + 16 * tile + row` of chunk `2 * pair + half`, with `first` a multiple of 8.
    pub(super) fn chunk(
        &self,
        first: usize,
        row: usize,
        half: usize,
        #[comptime] pair: usize,
        #[comptime] tile: usize,
    ) -> Vector<E, N> {
        let width = comptime!(chunks(self.dim));
        let at = operand_place(first, row, half, pair, width);
        self.chunks[at + comptime!(operand_offset(pair, tile, width))]
    }

    /// Element `16 * pair + column` of row `first + 16 * tile + row`, with `first` a multiple of 8.
    ///
    /// As [`operand_place`] says, but that rows are known: of the way to an element two places are not.
    pub(super) fn element(
        &self,
        first: usize,
        #[comptime] row: usize,
        column: usize,
        #[comptime] pair: usize,
        #[comptime] tile: usize,
    ) -> E {
        let width = comptime!(chunks(self.dim));
        let (odd, offset) = comptime!(row_offset(row, pair, tile, width));
        let elements = self.chunks.as_slice().with_vector_size::<Const<1>>();
        let at = (first * width + ((column / LANES) ^ odd)) * LANES + column % LANES;
        elements[at + comptime!(offset * LANES)].extract(0usize)
    }

    /// Puts the sums of a product, rounded, in the rows of this plane.
    pub(super) fn put_sums(
        &mut self,
        sums: &Array<Pair<f32>>,
        #[comptime] tiles: usize,
        #[comptime] parts: usize,
    ) {
        let (width, products) = comptime!((chunks(self.dim), self.products));
        if comptime!(products == Products::Wmma) {
            wmma::put_sums::<E, N>(self, sums, tiles, parts);
        } else {
            let pairs = self
                .chunks
                .as_mut_slice()
                .with_vector_size_mut::<Const<2>>();
            #[unroll]
            for row in 0..comptime!(products.rows(parts)) {
                let at_row = own_row(row, parts, products) as usize;
                #[unroll]
                for tile in 0..tiles {
                    let at = place(at_row, tile, width) * 4usize + UNIT_POS as usize % 4usize;
                    let pair = comptime!(products.pair_of(row, tile, tiles));
                    pairs[at] = Vector::cast_from(sums[pair]);
                }
            }
        }
    }
}
