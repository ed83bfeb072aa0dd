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
    let weights_at = column * pitch as usize;

    let mut sums = Array::<Vector<f32, N>>::new(most);
    #[unroll]
    for row in 0..most {
        sums[row] = Vector::new(0.0f32);
    }
    let (count, step) = comptime!((ahead(most, true), COLUMN_SHARES));
    let turns = vectors / comptime!(count * step);
    let mut at = share;
    if turns > 0usize {
        let mut read = read_some::<E, N>(weights, weights_at + at, step.runtime(), count);
        for _ in 1..turns {
            let next = weights_at + at + comptime!(count * step);
            let next = read_some::<E, N>(weights, next, step.runtime(), count);
            #[unroll]
            for n in 0..count {
                let of_x = at + comptime!(n * step);
                add_vector::<E, N>(&mut sums, read[n], x, of_x, vectors, rows, most);
                read[n] = next[n];
            }
            at += comptime!(count * step);
        }
        #[unroll]
        for n in 0..count {
            let of_x = at + comptime!(n * step);
            add_vector::<E, N>(&mut sums, read[n], x, of_x, vectors, rows, most);
        }
        at += comptime!(count * step);
    }
    while at < vectors {
        let read = weights[weights_at + at];
        add_vector::<E, N>(&mut sums, read, x, at, vectors, rows, most);
        at += COLUMN_SHARES;
    }

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

/// `count` vectors from `from` on, each `step` further than the one before. They are multiplied a turn later: compilers keep loads
/// together so, which they spread among the products of the same turn otherwise.
#[cube]
fn read_some<E: Float, N: Size>(
    weights: &[Vector<E, N>],
    from: usize,
    step: usize,
    #[comptime] count: usize,
) -> Array<Vector<E, N>> {
    let mut read = Array::<Vector<E, N>>::new(count);
    #[unroll]
    for n in 0..count {
        read[n] = weights[from + n * step];
    }
    read
}

/// Adds the products of a vector of a column and that of each row.
#[cube]
fn add_vector<E: Float, N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    weights: Vector<E, N>,
    x: &[Vector<E, N>],
    at: usize,
    vectors: usize,
    rows: u32,
    #[comptime] most: usize,
) {
    let weights = Vector::<f32, N>::cast_from(weights);
    #[unroll]
    for row in 0..most {
        // Beyond the last row there is its work again.
        let of_row = min(comptime!(row as u32), rows - 1) as usize * vectors;
        sums[row] += weights * Vector::cast_from(x[of_row + at]);
    }
}

/// `out = x weights` where the outputs of an input lie next to each other. `x` is `[rows, inputs]` and `weights`, in vectors,
/// `[inputs, outputs]`, `pitch` from an input to the next. Grid: vectors of columns, [`ROW_VECTORS`] a cube.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn by_rows<E: Float, N: Size>(
    x: &[E],
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

    let mut sums = Array::<Vector<f32, N>>::new(most);
    #[unroll]
    for row in 0..most {
        sums[row] = Vector::new(0.0f32);
    }
    let count = comptime!(ahead(most, false));
    let turns = inputs / comptime!(count * all_shares);
    let step = all_shares * pitch;
    let mut at = share;
    if turns > 0usize {
        let mut read = read_some::<E, N>(weights, at * pitch + column, step, count);
        for _ in 1..turns {
            let next = at * pitch + column + count * step;
            let next = read_some::<E, N>(weights, next, step, count);
            #[unroll]
            for n in 0..count {
                let input = at + comptime!(n * all_shares);
                add_input::<E, N>(&mut sums, read[n], x, input, inputs, rows, most);
                read[n] = next[n];
            }
            at += comptime!(count * all_shares);
        }
        #[unroll]
        for n in 0..count {
            let input = at + comptime!(n * all_shares);
            add_input::<E, N>(&mut sums, read[n], x, input, inputs, rows, most);
        }
        at += comptime!(count * all_shares);
    }
    while at < inputs {
        let read = weights[at * pitch + column];
        add_input::<E, N>(&mut sums, read, x, at, inputs, rows, most);
        at += all_shares;
    }

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

/// Adds the products of the outputs of an input and that input of each row.
#[cube]
fn add_input<E: Float, N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    weights: Vector<E, N>,
    x: &[E],
    input: usize,
    inputs: usize,
    rows: u32,
    #[comptime] most: usize,
) {
    let weights = Vector::<f32, N>::cast_from(weights);
    #[unroll]
    for row in 0..most {
        let of_row = min(comptime!(row as u32), rows - 1) as usize * inputs;
        sums[row] += weights * Vector::new(f32::cast_from(x[of_row + input]));
    }
}
