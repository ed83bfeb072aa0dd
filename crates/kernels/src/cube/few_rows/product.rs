//! The product of a few rows and a matrix, which is read in the order of its memory.
//!
//! A unit has some of the columns and a share of the inputs: it reads a few vectors of the matrix ahead, and multiplies them with
//! all rows. Shares are added in their order, so that results are the same in every run.

use cubecl::prelude::*;

use crate::cube::round::{Rounding, rounded};

/// Units of a cube.
pub(in crate::cube) const UNITS: usize = 256;
/// Units that share a column where the matrix lies column by column: a plane of most devices, which reads on end.
pub(in crate::cube) const COLUMN_SHARES: usize = 32;
/// Vectors of columns that a cube has where the matrix lies row by row: 64 bytes of 2-byte types, as memory hands them out.
pub(in crate::cube) const ROW_VECTORS: usize = 4;
/// Shared memory that every device has.
pub(in crate::cube) const SHARED_BYTES: usize = 16 * 1024;

/// Vectors that a unit reads while it multiplies as many. Sums of many rows leave registers for fewer, and so do vectors of `x` where
/// inputs lie next to each other.
fn ahead(most: usize, columns: bool) -> usize {
    match (most, columns) {
        (1 | 2, false) => 8,
        (16, _) => 2,
        _ => 4,
    }
}

/// `out = x weights` where the inputs of a column lie next to each other. `x` is `[rows, inputs]` and `weights` `[outputs, inputs]`,
/// in vectors, `pitch` from a column to the next. Grid: columns, `UNITS / COLUMN_SHARES` a cube.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn by_columns<E: Float, N: Size>(
    x: &[Vector<E, N>],
    weights: &[Vector<E, N>],
    out: &mut [E],
    rows: u32,
    vectors: u32,
    outputs: u32,
    pitch: u32,
    #[comptime] most: usize,
    #[comptime] lanes: usize,
    #[comptime] rounding: Rounding,
    #[define(E)] _dtype: ElemType,
) {
    let owners = comptime!(UNITS / COLUMN_SHARES);
    let owner = UNIT_POS as usize / COLUMN_SHARES;
    let share = UNIT_POS as usize % COLUMN_SHARES;
    let first = CUBE_POS * owners;
    // Beyond the last column there is its work again.
    let column = min(first + owner, outputs as usize - 1);
    let vectors = vectors as usize;
    let sums = sums_of::<E, N, N>(
        weights,
        column * pitch as usize,
        1usize.runtime(),
        x,
        vectors,
        rows,
        share,
        COLUMN_SHARES,
        most,
        true,
    );

    let mut shares = Shared::<[f32]>::new_slice(comptime!(UNITS * most));
    #[unroll]
    for row in 0..most {
        let mut sum = f32::new(0.0);
        #[unroll]
        for lane in 0..lanes {
            sum += sums[row].extract(lane);
        }
        shares[(share * most + row) * owners + owner] = sum;
    }
    sync_cube();
    let (row, column) = (
        UNIT_POS as usize / owners,
        first + UNIT_POS as usize % owners,
    );
    if row < rows as usize && column < outputs as usize {
        let mut value = f32::new(0.0);
        for share in 0..COLUMN_SHARES {
            value += shares[share * comptime!(owners * most) + UNIT_POS as usize];
        }
        let value = rounded::<E, Const<1>>(Vector::new(value), 1usize, rounding);
        out[row * outputs as usize + column] = value.extract(0usize);
    }
}

/// `out = x weights` where the outputs of an input lie next to each other. `x` is `[rows, inputs]` and `weights`, in vectors,
/// `[inputs, outputs]`, `pitch` from an input to the next. Grid: vectors of columns, [`ROW_VECTORS`] a cube.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn by_rows<E: Float, N: Size>(
    x: &[Vector<E, Const<1>>],
    weights: &[Vector<E, N>],
    out: &mut [Vector<E, N>],
    rows: u32,
    inputs: u32,
    vectors: u32,
    pitch: u32,
    #[comptime] most: usize,
    #[comptime] lanes: usize,
    #[comptime] rounding: Rounding,
    #[define(E)] _dtype: ElemType,
) {
    let all_shares = comptime!(UNITS / ROW_VECTORS);
    let owner = UNIT_POS as usize % ROW_VECTORS;
    let share = UNIT_POS as usize / ROW_VECTORS;
    let first = CUBE_POS * ROW_VECTORS;
    // Beyond the last columns there is their work again.
    let column = min(first + owner, vectors as usize - 1);
    let (inputs, vectors, pitch) = (inputs as usize, vectors as usize, pitch as usize);

    let sums = sums_of::<E, N, Const<1>>(
        weights, column, pitch, x, inputs, rows, share, all_shares, most, false,
    );

    // As many rows at a time as there is shared memory for.
    let together = comptime!(most.min(SHARED_BYTES / (UNITS * lanes * 4)));
    let mut shares = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS * together));
    #[unroll]
    for turn in 0..comptime!(most / together) {
        let first_row = comptime!(turn * together);
        #[unroll]
        for n in 0..together {
            shares[(share * together + n) * ROW_VECTORS + owner] = sums[comptime!(first_row + n)];
        }
        sync_cube();
        let (row, column) = (
            first_row + UNIT_POS as usize / ROW_VECTORS,
            first + UNIT_POS as usize % ROW_VECTORS,
        );
        if UNIT_POS < comptime!((together * ROW_VECTORS) as u32)
            && row < rows as usize
            && column < vectors
        {
            let mut values = Vector::<f32, N>::new(0.0f32);
            for share in 0..all_shares {
                values += shares[share * comptime!(together * ROW_VECTORS) + UNIT_POS as usize];
            }
            out[row * vectors + column] = rounded::<E, N>(values, lanes, rounding);
        }
        sync_cube();
    }
}

/// The sums of a unit for each row: of vectors `from + n * step` of the matrix and elements `n` of the row, for each `n` of its share.
/// An element is a vector of inputs where a vector of the matrix is one of a column, by `columns`, and else a single input, which is
/// multiplied with a vector of columns.
///
/// Vectors are multiplied a turn after they are read: compilers keep loads together so, which they spread among the products of the
/// same turn otherwise.
#[cube]
#[allow(clippy::too_many_arguments)]
fn sums_of<E: Float, N: Size, M: Size>(
    weights: &[Vector<E, N>],
    from: usize,
    step: usize,
    x: &[Vector<E, M>],
    length: usize,
    rows: u32,
    share: usize,
    #[comptime] shares: usize,
    #[comptime] most: usize,
    #[comptime] columns: bool,
) -> Array<Vector<f32, N>> {
    let mut sums = Array::<Vector<f32, N>>::new(most);
    #[unroll]
    for row in 0..most {
        sums[row] = Vector::new(0.0f32);
    }
    let count = comptime!(ahead(most, columns));
    let turns = length / comptime!(count * shares);
    let mut at = share;
    if turns > 0usize {
        let mut read = Array::<Vector<E, N>>::new(count);
        #[unroll]
        for n in 0..count {
            read[n] = weights[from + (at + comptime!(n * shares)) * step];
        }
        for _ in 1..turns {
            let mut next = Array::<Vector<E, N>>::new(count);
            #[unroll]
            for n in 0..count {
                next[n] = weights[from + (at + comptime!((count + n) * shares)) * step];
            }
            #[unroll]
            for n in 0..count {
                let element = at + comptime!(n * shares);
                add::<E, N, M>(&mut sums, read[n], x, element, length, rows, most, columns);
                read[n] = next[n];
            }
            at += comptime!(count * shares);
        }
        #[unroll]
        for n in 0..count {
            let element = at + comptime!(n * shares);
            add::<E, N, M>(&mut sums, read[n], x, element, length, rows, most, columns);
        }
        at += comptime!(count * shares);
    }
    while at < length {
        let read = weights[from + at * step];
        add::<E, N, M>(&mut sums, read, x, at, length, rows, most, columns);
        at += shares;
    }
    sums
}

/// Adds the products of a vector of the matrix and the element `at` of each row.
#[cube]
#[allow(clippy::too_many_arguments)]
fn add<E: Float, N: Size, M: Size>(
    sums: &mut Array<Vector<f32, N>>,
    weights: Vector<E, N>,
    x: &[Vector<E, M>],
    at: usize,
    length: usize,
    rows: u32,
    #[comptime] most: usize,
    #[comptime] columns: bool,
) {
    let weights = Vector::<f32, N>::cast_from(weights);
    #[unroll]
    for row in 0..most {
        // Beyond the last row there is its work again.
        let of_row = min(comptime!(row as u32), rows - 1) as usize * length;
        let element = x[of_row + at];
        if comptime!(columns) {
            sums[row] += weights * Vector::cast_from(element);
        } else {
            sums[row] += weights * Vector::new(f32::cast_from(element.extract(0usize)));
        }
    }
}
