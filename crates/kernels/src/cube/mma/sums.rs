//! What a kernel sums over all of its visits.

use cubecl::prelude::*;

use super::fragments::{Pair, accumulate, zeros};
use super::groups;
use super::products::Products;
use super::stage::{Stage, chunks};

/// Sums of a row of `dim` elements for each row of a unit: in an array, or in registers that instructions of four planes name.
#[derive(CubeType)]
pub(super) struct Sums {
    pairs: Array<Pair<f32>>,
    /// What the registers are called, unlike those of other sums; nothing for an array.
    #[cube(comptime)]
    name: &'static str,
    #[cube(comptime)]
    dim: usize,
    #[cube(comptime)]
    parts: usize,
    #[cube(comptime)]
    products: Products,
}

/// Zeros.
#[cube]
pub(super) fn sums(
    #[comptime] dim: usize,
    #[comptime] parts: usize,
    #[comptime] products: Products,
    #[comptime] name: &'static str,
) -> Sums {
    if comptime!(!name.is_empty()) {
        groups::declare(name, comptime!(4 * chunks(dim)));
    }
    Sums {
        pairs: zeros(comptime!(if name.is_empty() {
            parts * chunks(dim)
        } else {
            0
        })),
        name,
        dim,
        parts,
        products,
    }
}

#[cube]
impl Sums {
    /// Multiplies those of row `row` of each unit.
    pub(super) fn scale(&mut self, #[comptime] row: usize, factor: f32) {
        let (tiles, products) = comptime!((chunks(self.dim), self.products));
        if comptime!(self.name.is_empty()) {
            #[unroll]
            for n in 0..comptime!(products.row_pairs(tiles)) {
                self.pairs[comptime!(products.pair_of(row, n, tiles))] *= Vector::new(factor);
            }
        } else {
            groups::scale(self.name, tiles, row, factor);
        }
    }

    /// Adds `weights * right`, with `weights` the rounded sums of a product of `tiles` tiles over rows `first ..` of `right`.
    pub(super) fn accumulate<E: Float, N: Size>(
        &mut self,
        weights: &Array<Pair<E>>,
        right: &Stage<E, N>,
        first: usize,
        #[comptime] tiles: usize,
    ) {
        let (dim, parts) = comptime!((self.dim, self.parts));
        if comptime!(self.name.is_empty()) {
            accumulate::<E, N>(&mut self.pairs, weights, right, first, tiles, dim, parts);
        } else {
            groups::accumulate::<E, N>(self.name, weights, right, first, tiles, dim);
        }
    }

    /// All of them, after the last visit.
    pub(super) fn take(&self) -> Array<Pair<f32>> {
        let count = comptime!(self.parts * chunks(self.dim));
        let mut pairs = zeros(count);
        #[unroll]
        for n in 0..comptime!(2 * count) {
            if comptime!(self.name.is_empty()) {
                pairs[n] = self.pairs[n];
            } else {
                let mut pair = pairs[n];
                #[unroll]
                for e in 0..2usize {
                    pair.insert(e, groups::read(self.name, comptime!(2 * n + e)));
                }
                pairs[n] = pair;
            }
        }
        pairs
    }
}
