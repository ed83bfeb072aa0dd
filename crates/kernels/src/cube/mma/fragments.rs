//! Products on tensor cores: what each unit holds of an operand or a sum, and what it does with it.
//!
//! Those written out here are NVIDIA's: a plane of 32 units computes `16 x 8` sums over a depth of 16. Unit `u` holds of each
//! sum the elements `2 (u % 4)` and the next, of rows `u / 4` and `u / 4 + 8`; of a left operand the same of two tiles of 8
//! columns. So the sums of two neighbouring tiles, rounded, are a left operand as they are.

use cubecl::prelude::*;

use super::products::Products;
use super::stage::{Stage, chunks};
use super::wmma;
use crate::cube::walk::NONE;

/// Two neighbouring elements.
pub(in crate::cube) type Pair<E> = Vector<E, Const<2>>;

/// The product: `16 x 8` sums over a depth of 16.
#[cube]
pub(in crate::cube) fn definition<E: Float>() -> cmma::MmaDefinition<E, E, f32> {
    cmma::MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize)
}

/// Sums of `16 x (8 * tiles)`, as [`super::products`] says. Where a plane has two such, the second follows.
#[cube]
pub(in crate::cube) fn zeros(#[comptime] tiles: usize) -> Array<Pair<f32>> {
    let mut sums = Array::<Pair<f32>>::new(comptime!(2 * tiles));
    #[unroll]
    for n in 0..comptime!(2 * tiles) {
        sums[n] = Vector::new(0.0f32);
    }
    sums
}

/// `sums[tile ..= tile + 1] += left * right`, with `left` from pair `first` on.
#[cube]
fn multiply<E: Float>(
    left: &Array<Pair<E>>,
    #[comptime] first: usize,
    right: &Array<Pair<E>>,
    sums: &mut Array<Pair<f32>>,
    #[comptime] tile: usize,
) {
    let mut a = Array::<Pair<E>>::new(4usize);
    #[unroll]
    for r in 0..4usize {
        a[r] = left[comptime!(first + r)];
    }
    #[unroll]
    for t in 0..2usize {
        let mut b = Array::<Pair<E>>::new(2usize);
        b[0usize] = right[comptime!(2 * t)];
        b[1usize] = right[comptime!(2 * t + 1)];
        let mut c = Array::<Pair<f32>>::new(2usize);
        c[0usize] = sums[comptime!(2 * (tile + t))];
        c[1usize] = sums[comptime!(2 * (tile + t) + 1)];
        definition::<E>().execute_inplace::<Const<2>, Const<2>, Const<2>>(&a, &b, &mut c);
        sums[comptime!(2 * (tile + t))] = c[0usize];
        sums[comptime!(2 * (tile + t) + 1)] = c[1usize];
    }
}

/// Sums of the `parts` tiles of rows of this plane in `left` with rows `first ..` of `right`, 8 rows a tile.
#[cube]
pub(in crate::cube) fn scores<E: Float, N: Size>(
    left: &Stage<E, N>,
    right: &Stage<E, N>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] dim: usize,
    #[comptime] parts: usize,
) -> Array<Pair<f32>> {
    if comptime!(left.products == Products::Wmma) {
        wmma::scores::<E, N>(left, right, first, tiles, dim, parts)
    } else {
        let plane = UNIT_POS as usize / 32usize;
        let mut sums = zeros(comptime!(parts * tiles));
        #[unroll]
        for k in 0..comptime!(chunks(dim) / 2) {
            let mut a = Array::<Pair<E>>::new(comptime!(4 * parts));
            #[unroll]
            for part in 0..parts {
                let rows = left.left(plane * parts + part, k);
                #[unroll]
                for r in 0..4usize {
                    a[comptime!(4 * part + r)] = rows[r];
                }
            }
            #[unroll]
            for n in 0..comptime!(tiles / 2) {
                let b = right.right_transposed(first, n, k);
                #[unroll]
                for part in 0..parts {
                    multiply::<E>(
                        &a,
                        comptime!(4 * part),
                        &b,
                        &mut sums,
                        comptime!(part * tiles + 2 * n),
                    );
                }
            }
        }
        sums
    }
}

/// Sums of a product of `tiles` tiles as a left operand.
#[cube]
pub(in crate::cube) fn rounded<E: Float>(
    sums: &Array<Pair<f32>>,
    #[comptime] tiles: usize,
) -> Array<Pair<E>> {
    let mut rounded = Array::<Pair<E>>::new(comptime!(2 * tiles));
    #[unroll]
    for n in 0..comptime!(2 * tiles) {
        rounded[n] = Vector::cast_from(sums[n]);
    }
    rounded
}

/// `sums += weights * right`, with `weights` the [`rounded`] sums of a product over rows `first ..` of `right`.
#[cube]
pub(in crate::cube) fn accumulate<E: Float, N: Size>(
    sums: &mut Array<Pair<f32>>,
    weights: &Array<Pair<E>>,
    right: &Stage<E, N>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] dim: usize,
    #[comptime] parts: usize,
) {
    if comptime!(right.products == Products::Wmma) {
        wmma::accumulate::<E, N>(sums, weights, right, first, tiles, dim, parts);
    } else {
        #[unroll]
        for k in 0..comptime!(tiles / 2) {
            #[unroll]
            for n in 0..comptime!(chunks(dim) / 2) {
                let b = right.right(first, n, k);
                #[unroll]
                for part in 0..parts {
                    multiply::<E>(
                        weights,
                        comptime!(2 * part * tiles + 4 * k),
                        &b,
                        sums,
                        comptime!(part * chunks(dim) + 2 * n),
                    );
                }
            }
        }
    }
}

/// `sums += weights * 1`: the sums of rows, a pair of equal ones for each row of a unit.
#[cube]
pub(in crate::cube) fn add_row_sums<E: Float>(
    sums: &mut Array<Pair<f32>>,
    weights: &Array<Pair<E>>,
    #[comptime] tiles: usize,
    #[comptime] parts: usize,
) {
    let mut ones = Array::<Pair<E>>::new(2usize);
    ones[0usize] = Vector::cast_from(1.0f32);
    ones[1usize] = Vector::cast_from(1.0f32);
    #[unroll]
    for part in 0..parts {
        let mut c = Array::<Pair<f32>>::new(2usize);
        c[0usize] = sums[comptime!(2 * part)];
        c[1usize] = sums[comptime!(2 * part + 1)];
        #[unroll]
        for k in 0..comptime!(tiles / 2) {
            let mut a = Array::<Pair<E>>::new(4usize);
            #[unroll]
            for r in 0..4usize {
                a[r] = weights[comptime!(2 * part * tiles + 4 * k + r)];
            }
            definition::<E>().execute_inplace::<Const<2>, Const<2>, Const<2>>(&a, &ones, &mut c);
        }
        sums[comptime!(2 * part)] = c[0usize];
        sums[comptime!(2 * part + 1)] = c[1usize];
    }
}

/// Multiplies sums by `factor`; rows without a token are zeros.
#[cube]
pub(in crate::cube) fn scale_rows(
    sums: &mut Array<Pair<f32>>,
    tokens: &Array<i32>,
    #[comptime] tiles: usize,
    #[comptime] parts: usize,
    #[comptime] products: Products,
    factor: f32,
) {
    #[unroll]
    for n in 0..comptime!(2 * parts * tiles) {
        let empty = tokens[comptime!(products.row_of(n, tiles))] == NONE;
        let mut pair = sums[n] * Vector::new(factor);
        #[unroll]
        for e in 0..2usize {
            pair.insert(e, select(empty, f32::new(0.0), pair.extract(e)));
        }
        sums[n] = pair;
    }
}
