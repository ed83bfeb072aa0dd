//! Norms of rows: a cube each.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::checks::{check_few_rows, lanes};
use crate::cube::checks::{check_count, check_len};
use crate::cube::error::CubeError;
use crate::cube::first_launch::{Class, launched};
use crate::cube::launch::{address_type, grid};
use crate::cube::round::{Rounding, rounded};
use crate::cube::select::Engine;

/// Units of a cube.
pub(in crate::cube) const UNITS: usize = 256;
/// Units that add the sums of as many others, each.
const ADDERS: usize = 16;
/// Shared memory of a cube.
pub(super) const SHARED_BYTES: usize = (UNITS + ADDERS) * 4;

/// The norm of rows: `x / sqrt(mean(x^2) + epsilon) * weight`, as [Zhang & Sennrich](https://arxiv.org/abs/1910.07467),
/// in f32, rounded once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowNorm {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// What is added to the mean square.
    pub epsilon: f64,
}

impl RowNorm {
    /// Launches the norm of `x`, `[rows, width]`, with `weight`, `[width]`, to `out`, `[rows, width]`. All are contiguous
    /// and of `dtype`: f32, f16 or bf16. Nothing waits for the device.
    ///
    /// # Errors
    /// Those of [`RowProduct::launch`](super::RowProduct::launch).
    pub fn launch(
        &self,
        client: &Client,
        dtype: ElemType,
        x: &Handle,
        weight: &Handle,
        out: &Handle,
    ) -> Result<(), CubeError> {
        let &Self {
            rows,
            width,
            epsilon,
        } = self;
        check_few_rows(client, dtype)?;
        check_count("rows of a norm", rows)?;
        check_count("elements of a norm", width)?;
        let bytes = dtype.size();
        check_len("x", x, rows * width, bytes)?;
        check_len("weight", weight, width, bytes)?;
        check_len("out", out, rows * width, bytes)?;
        if rows * width == 0 {
            return Ok(());
        }

        let lanes = lanes(client, dtype, width, &[x, weight, out]);
        unsafe {
            norm::launch_unchecked(
                client,
                grid(client, rows)?,
                CubeDim::new_1d(UNITS as u32),
                address_type([x.size()].into_iter(), bytes),
                lanes,
                BufferArg::from_raw_parts(x.clone(), rows * width / lanes),
                BufferArg::from_raw_parts(weight.clone(), width / lanes),
                BufferArg::from_raw_parts(out.clone(), rows * width / lanes),
                rows as u32,
                (width / lanes) as u32,
                width as f32,
                epsilon as f32,
                lanes,
                Rounding::of(client.name(), dtype),
                dtype,
            );
        }
        let class = Class::Norm { lanes };
        launched(client, Engine::Unit, "row norm", dtype, class, out)
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * weight` of each row; all in vectors, `vectors` a row. Grid: rows; more end at once.
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
    #[comptime] lanes: usize,
    #[comptime] rounding: Rounding,
    #[define(E)] _dtype: ElemType,
) {
    let vectors = vectors as usize;
    // A whole cube ends, or none of it.
    if CUBE_POS < rows as usize {
        let first = CUBE_POS * vectors;
        let mut sums = Shared::<[f32]>::new_slice(comptime!(UNITS + ADDERS));
        let mut squares = Vector::<f32, N>::new(0.0f32);
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[first + at]);
            squares += values * values;
            at += UNITS;
        }
        let square = of_cube::<N>(&mut sums, squares, lanes) / width;
        let scale = f32::new(1.0) / (square + epsilon).sqrt();
        let mut at = UNIT_POS as usize;
        while at < vectors {
            let values = Vector::<f32, N>::cast_from(x[first + at]);
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
    all
}
