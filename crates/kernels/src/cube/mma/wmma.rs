//! Products of AMD's GPUs: `16 x 16` sums over a depth of 16, by RDNA3's and RDNA4's `wmma`.
//!
//! They are computed transposed, visited rows times owned rows and values times weights: a unit holds a column of them, which
//! then is one owned row, and sums of scores, rounded, are a right operand almost as they are.
//!
//! Operands go by rows. On RDNA4 each half of a plane has 8 elements of each of the 16 rows of an operand, and 8 neighbouring
//! rows of the sums. On RDNA3 both halves have all 16 elements, and the even or odd rows of the sums: left operands are given
//! their rows in another order, so that these are 8 neighbours too. Then [`super::products`] holds for both. Which 8 of a row's
//! elements a half has is the same for both operands, so that no sum depends on it.

use cubecl::prelude::*;

use super::fragments::{Pair, zeros};
use super::products::{Products, own_row};
use super::stage::{LANES, Stage, chunks, place};
use crate::cube::rows::HeadRows;
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::NONE;

/// Steps whose operands are read together. Nothing waits between these, but compilers that read all operands before the first
/// product run out of registers.
const AHEAD: usize = 2;

#[cube]
fn definition<E: Float>() -> cmma::MmaDefinition<E, E, f32> {
    cmma::MmaDefinition::<E, E, f32>::new(16usize, 16usize, 16usize)
}

/// Chunk `chunk` of the row of `token`; zeros for [`NONE`], from token `end` on, and beyond `dim` elements of `width`.
///
/// Without a branch: AMD's compiler moves products behind it that are not needed before, and keeps their operands in registers
/// that there are not. Where nothing is to be read the first row is, and left.
#[cube]
pub(super) fn read<E: Float, N: Size>(
    tensor: &VectorTensor<E, N>,
    rows: &HeadRows,
    token: i32,
    end: i32,
    chunk: usize,
    #[comptime] width: usize,
    #[comptime] dim: usize,
) -> Vector<E, N> {
    let mut there = token != NONE && token < end;
    let mut chunk = chunk;
    if comptime!(chunks(width) * LANES != dim) {
        there = there && chunk < comptime!(dim / LANES);
        chunk = min(chunk, comptime!(dim / LANES - 1));
    }
    let value = tensor.vectors[rows.at(select(there, token, rows.start)) + chunk];
    select(there, value, Vector::cast_from(0.0f32))
}

/// Elements that a unit has of a row of an operand: 16 on RDNA3, 8 on RDNA4.
#[cube]
fn depth<E: Float>() -> comptime_type!(usize) {
    definition::<E>().elems_per_lane(cmma::MatrixIdent::A)
}

/// Which half of its plane a unit is of.
#[cube]
fn upper() -> usize {
    UNIT_POS as usize % 32usize / 16usize
}

/// The row that this unit has of a tile of 16 as a left operand.
#[cube]
fn left_row(#[comptime] depth: usize) -> usize {
    let lane = UNIT_POS as usize % 16usize;
    if comptime!(depth == 16) {
        lane % 2usize * 8usize + lane / 2usize
    } else {
        lane
    }
}

/// The `16 x 16` sums from pair `pair` on `+= left * right`, with `right` from register `first` on.
#[cube]
fn multiply<E: Float, N: Size>(
    left: &Array<Vector<E, N>>,
    right: &Array<Vector<E, N>>,
    #[comptime] first: usize,
    sums: &mut Array<Pair<f32>>,
    #[comptime] pair: usize,
    #[comptime] registers: usize,
) {
    let mut b = Array::<Vector<E, N>>::new(registers);
    #[unroll]
    for r in 0..registers {
        b[r] = right[comptime!(first + r)];
    }
    let mut c = Array::<Pair<f32>>::new(4usize);
    #[unroll]
    for r in 0..4usize {
        c[r] = sums[comptime!(pair + r)];
    }
    definition::<E>().execute_inplace::<N, N, Const<2>>(left, &b, &mut c);
    #[unroll]
    for r in 0..4usize {
        sums[comptime!(pair + r)] = c[r];
    }
}

/// Sums of the `parts` tiles of rows of this plane in `owned` with rows `first ..` of `visited`, 8 rows a tile.
#[cube]
pub(super) fn scores<E: Float, N: Size>(
    owned: &Stage<E, N>,
    visited: &Stage<E, N>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] dim: usize,
    #[comptime] parts: usize,
) -> Array<Pair<f32>> {
    let depth = depth::<E>();
    let registers = comptime!(depth / 8);
    let plane = UNIT_POS as usize / 32usize;
    let lane = UNIT_POS as usize % 16usize;
    let mut sums = zeros(comptime!(parts * tiles));
    #[unroll]
    for k in 0..comptime!(chunks(dim) / 2) {
        if comptime!(k % AHEAD == 0) {
            sync_plane();
        }
        let mut b = Array::<Vector<E, N>>::new(comptime!(parts * registers));
        #[unroll]
        for part in 0..parts {
            let row = elements::<E, N>(
                owned,
                (plane * parts + part) * 16usize,
                lane,
                k,
                0usize,
                depth,
            );
            #[unroll]
            for r in 0..registers {
                b[comptime!(part * registers + r)] = row[r];
            }
        }
        #[unroll]
        for n in 0..comptime!(tiles / 2) {
            let a = elements::<E, N>(visited, first, left_row(depth), k, n, depth);
            #[unroll]
            for part in 0..parts {
                multiply::<E, N>(
                    &a,
                    &b,
                    comptime!(part * registers),
                    &mut sums,
                    comptime!(2 * part * tiles + 4 * n),
                    registers,
                );
            }
        }
    }
    sums
}

/// What this unit holds of elements `16 * k ..` of row `first + 16 * tile + row`, with `first` a multiple of 8.
#[cube]
fn elements<E: Float, N: Size>(
    stage: &Stage<E, N>,
    first: usize,
    row: usize,
    #[comptime] k: usize,
    #[comptime] tile: usize,
    #[comptime] depth: usize,
) -> Array<Vector<E, N>> {
    let mut elements = Array::<Vector<E, N>>::new(comptime!(depth / 8));
    if comptime!(depth == 16) {
        elements[0usize] = stage.chunk(first, row, 0usize, k, tile);
        elements[1usize] = stage.chunk(first, row, 1usize, k, tile);
    } else {
        elements[0usize] = stage.chunk(first, row, upper(), k, tile);
    }
    elements
}

/// `sums += weights * visited`, with `weights` the rounded sums of a product over rows `first ..` of `visited`.
#[cube]
pub(super) fn accumulate<E: Float, N: Size>(
    sums: &mut Array<Pair<f32>>,
    weights: &Array<Pair<E>>,
    visited: &Stage<E, N>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] dim: usize,
    #[comptime] parts: usize,
) {
    let depth = depth::<E>();
    let registers = comptime!(depth / 2);
    #[unroll]
    for k in 0..comptime!(tiles / 2) {
        let mut b = Array::<Pair<E>>::new(comptime!(parts * registers));
        #[unroll]
        for part in 0..parts {
            let pairs = right_weights::<E>(weights, comptime!(2 * part * tiles + 4 * k), depth);
            #[unroll]
            for r in 0..registers {
                b[comptime!(part * registers + r)] = pairs[r];
            }
        }
        #[unroll]
        for n in 0..comptime!(chunks(dim) / 2) {
            if comptime!(n % AHEAD == 0) {
                sync_plane();
            }
            let a = column_elements::<E, N>(visited, first, n, k, depth);
            #[unroll]
            for part in 0..parts {
                multiply::<E, Const<2>>(
                    &a,
                    &b,
                    comptime!(part * registers),
                    sums,
                    comptime!(2 * part * chunks(dim) + 4 * n),
                    registers,
                );
            }
        }
    }
}

/// The four pairs of weights from `first` on as a right operand.
#[cube]
fn right_weights<E: Float>(
    weights: &Array<Pair<E>>,
    #[comptime] first: usize,
    #[comptime] depth: usize,
) -> Array<Pair<E>> {
    let mut pairs = Array::<Pair<E>>::new(comptime!(depth / 2));
    #[unroll]
    for r in 0..4usize {
        let own = weights[comptime!(first + r)];
        if comptime!(depth == 16) {
            let own = u32::reinterpret(own);
            let other = plane_shuffle_xor(own, 16u32);
            let is_upper = upper() == 1usize;
            pairs[r] = Pair::<E>::reinterpret(select(is_upper, other, own));
            pairs[comptime!(4 + r)] = Pair::<E>::reinterpret(select(is_upper, own, other));
        } else {
            pairs[r] = own;
        }
    }
    pairs
}

/// What this unit holds of rows `first + 16 * k ..` of a column of elements `16 * n ..`.
#[cube]
fn column_elements<E: Float, N: Size>(
    stage: &Stage<E, N>,
    first: usize,
    #[comptime] n: usize,
    #[comptime] k: usize,
    #[comptime] depth: usize,
) -> Array<Pair<E>> {
    let column = left_row(depth);
    let mut from = first;
    if comptime!(depth == 8) {
        from += upper() * 8usize;
    }
    let mut pairs = Array::<Pair<E>>::new(comptime!(depth / 2));
    #[unroll]
    for r in 0..comptime!(depth / 2) {
        let mut pair = Pair::<E>::empty();
        #[unroll]
        for e in 0..2usize {
            pair.insert(e, stage.element(from, comptime!(2 * r + e), column, n, k));
        }
        pairs[r] = pair;
    }
    pairs
}

/// `sums += weights * 1`: this unit's share of the sums of its rows.
#[cube]
pub(super) fn add_row_sums<E: Float>(
    sums: &mut Array<Pair<f32>>,
    weights: &Array<Pair<E>>,
    #[comptime] tiles: usize,
    #[comptime] parts: usize,
) {
    #[unroll]
    for n in 0..comptime!(2 * parts * tiles) {
        sums[comptime!(Products::Wmma.row_of(n, tiles))] += Vector::cast_from(weights[n]);
    }
}

/// Puts the sums of a product, rounded, in the rows of this plane: a chunk of each two.
#[cube]
pub(super) fn put_sums<E: Float, N: Size>(
    stage: &mut Stage<E, N>,
    sums: &Array<Pair<f32>>,
    #[comptime] tiles: usize,
    #[comptime] parts: usize,
) {
    let width = comptime!(chunks(stage.dim));
    #[unroll]
    for part in 0..parts {
        let row = own_row(part, parts, Products::Wmma) as usize;
        #[unroll]
        for n in 0..comptime!(tiles / 2) {
            let mut chunk = Vector::<E, N>::empty();
            #[unroll]
            for r in 0..4usize {
                let pair = sums[comptime!(2 * part * tiles + 4 * n + r)];
                chunk.insert(comptime!(2 * r), E::cast_from(pair.extract(0usize)));
                chunk.insert(comptime!(2 * r + 1), E::cast_from(pair.extract(1usize)));
            }
            let at = place(row, comptime!(2 * n) + upper(), width);
            stage.chunks[at] = chunk;
        }
    }
}
