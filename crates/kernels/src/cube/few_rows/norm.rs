//! Norms of a few rows: a cube each.

use cubecl::prelude::*;

use crate::cube::round::{Rounding, rounded};

/// Units of a cube.
pub(in crate::cube) const UNITS: usize = 256;
/// Units that add the sums of as many others, each.
pub(super) const ADDERS: usize = 16;

/// `x / sqrt(mean(x^2) + epsilon) * weight` of each row, of `x` less its mean where `centred`. All in vectors, `vectors` a row. Grid: rows; more end at once.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn norm<E: Float, N: Size>(
    x: &[Vector<E, N>],
    weight: &[Vector<E, N>],
    out: &mut [Vector<E, N>],
    rows: u32,
    vectors: u32,
    width: f32,
    epsilon: f32,
    #[comptime] centred: bool,
    #[comptime] lanes: usize,
    #[comptime] rounding: Rounding,
    #[define(E)] _dtype: ElemType,
) {
    let vectors = vectors as usize;
    // A whole cube ends, or none of it.
    if CUBE_POS < rows as usize {
        let first = CUBE_POS * vectors;
        let mut sums = Shared::<[f32]>::new_slice(comptime!(UNITS + ADDERS));
        let mut mean = f32::new(0.0);
        if centred {
            let mut sum = Vector::<f32, N>::new(0.0f32);
            let mut at = UNIT_POS as usize;
            while at < vectors {
                sum += Vector::cast_from(x[first + at]);
                at += UNITS;
            }
            mean = of_cube::<N>(&mut sums, sum, lanes) / width;
        }
        let mut squares = Vector::<f32, N>::new(0.0f32);
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[first + at]) - Vector::new(mean);
            squares += values * values;
            at += UNITS;
        }
        let square = of_cube::<N>(&mut sums, squares, lanes) / width;
        let scale = f32::new(1.0) / (square + epsilon).sqrt();
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[first + at]) - Vector::new(mean);
            let values = values * Vector::new(scale) * Vector::cast_from(weight[at]);
            out[first + at] = rounded::<E, N>(values, lanes, rounding);
            at += UNITS;
        }
    }
}

/// The sum of what the units of a cube have, the same for all of them.
#[cube]
fn of_cube<N: Size>(
    sums: &mut Shared<[f32]>,
    own: Vector<f32, N>,
    #[comptime] lanes: usize,
) -> f32 {
    let mut sum = f32::new(0.0);
    #[unroll]
    for lane in 0..lanes {
        sum += own.extract(lane);
    }
    sums[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS < comptime!(ADDERS as u32) {
        let mut part = f32::new(0.0);
        for n in 0..comptime!(UNITS / ADDERS) {
            part += sums[n * ADDERS + UNIT_POS as usize];
        }
        sums[UNITS + UNIT_POS as usize] = part;
    }
    sync_cube();
    let mut all = f32::new(0.0);
    for n in 0..ADDERS {
        all += sums[UNITS + n];
    }
    // What was added is read before others write again: `sums` are written after the next barrier only.
    sync_cube();
    all
}
