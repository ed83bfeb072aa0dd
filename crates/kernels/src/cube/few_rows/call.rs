//! Checks and launches.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::{norm, product};
use crate::cube::checks::{check_dtype, check_len, check_needs};
use crate::cube::error::CubeError;
use crate::cube::first_launch::{Class, launched};
use crate::cube::launch::{address_type, grid};
use crate::cube::round::Rounding;
use crate::cube::select::Engine;

/// Rows of a product, at most: beyond them a matrix is no longer all that is read.
pub const MAX_ROWS: usize = 16;
/// Bytes of a vector.
const VECTOR_BYTES: usize = 16;
/// Buffers of a kernel: three, and one of CubeCL for sizes.
const BUFFERS: usize = 4;

/// How a matrix `[inputs, outputs]` lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatrixOrder {
    /// The outputs of an input lie next to each other.
    Rows,
    /// The inputs of an output lie next to each other.
    Columns,
}

/// The product of a few rows and a matrix.
///
/// Sums are in f32, in an order that does not depend on the number of rows, and results are rounded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowProduct {
    /// Rows, up to [`MAX_ROWS`].
    pub rows: usize,
    /// Elements of a row of `x`.
    pub inputs: usize,
    /// Elements of a row of the result.
    pub outputs: usize,
    /// How `weights` lies.
    pub order: MatrixOrder,
}

impl RowProduct {
    /// Launches the product of `x`, `[rows, inputs]`, and `weights`, `[inputs, outputs]` by its order, to `out`,
    /// `[rows, outputs]`. All are contiguous and of `dtype`: f32, f16 or bf16. Nothing waits for the device.
    ///
    /// # Errors
    /// A [`CubeError`] for types, sizes and buffers that do not fit, before anything is launched, and [`CubeError::Launch`] where a
    /// kernel fails at its first launch.
    pub fn launch(
        &self,
        client: &Client,
        dtype: ElemType,
        x: &Handle,
        weights: &Handle,
        out: &Handle,
    ) -> Result<(), CubeError> {
        let &Self {
            rows,
            inputs,
            outputs,
            order,
        } = self;
        check_dtype(client, dtype)?;
        check_counts([
            ("rows of a product", rows, MAX_ROWS),
            ("inputs of a product", inputs, i32::MAX as usize),
            ("outputs of a product", outputs, i32::MAX as usize),
        ])?;
        let bytes = dtype.size();
        check_len("x", x, rows * inputs, bytes)?;
        check_len("weights", weights, inputs * outputs, bytes)?;
        check_len("out", out, rows * outputs, bytes)?;
        if rows * outputs == 0 {
            return Ok(());
        }

        let most = rows.next_power_of_two();
        // Vectors lie along the axis whose elements are next to each other.
        let (axis, in_vectors) = match order {
            MatrixOrder::Columns => (inputs, [x, weights, weights]),
            MatrixOrder::Rows => (outputs, [weights, out, out]),
        };
        let lanes = lanes(client, dtype, axis, &in_vectors);
        check_kernel(client, "row product", product::SHARED_BYTES)?;
        let cubes = match order {
            MatrixOrder::Columns => outputs.div_ceil(product::UNITS / product::COLUMN_SHARES),
            MatrixOrder::Rows => (outputs / lanes).div_ceil(product::ROW_VECTORS),
        };
        let of_columns = order == MatrixOrder::Columns;
        let [of_x, of_out] =
            [!of_columns, of_columns].map(|scalars| if scalars { 1 } else { lanes });
        let (inputs_arg, outputs_arg) = if of_columns {
            (inputs / lanes, outputs)
        } else {
            (inputs, outputs / lanes)
        };
        let kernel = match order {
            MatrixOrder::Columns => product::by_columns::launch_unchecked,
            MatrixOrder::Rows => product::by_rows::launch_unchecked,
        };
        let handles = [x, weights, out];
        unsafe {
            kernel(
                client,
                grid(client, cubes)?,
                CubeDim::new_1d(product::UNITS as u32),
                address_type(handles.iter().map(|handle| handle.size()), bytes),
                lanes,
                BufferArg::from_raw_parts(x.clone(), rows * inputs / of_x),
                BufferArg::from_raw_parts(weights.clone(), inputs * outputs / lanes),
                BufferArg::from_raw_parts(out.clone(), rows * outputs / of_out),
                rows as u32,
                inputs_arg as u32,
                outputs_arg as u32,
                most,
                lanes,
                Rounding::of(client.name(), dtype),
                dtype,
            );
        }
        let class = Class::Product { order, most, lanes };
        launched(client, Engine::Unit, "row product", dtype, class, out)
    }
}

/// The norm of rows: `x / sqrt(mean(x^2) + epsilon) * weight`, as [Zhang & Sennrich](https://arxiv.org/abs/1910.07467), or that of
/// `x` less its mean, as [Ba et al.](https://arxiv.org/abs/1607.06450), in f32, rounded once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowNorm {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// What is added to the mean square.
    pub epsilon: f64,
    /// Whether the mean is subtracted first.
    pub centred: bool,
}

impl RowNorm {
    /// Launches the norm of `x`, `[rows, width]`, with `weight`, `[width]`, to `out`, `[rows, width]`. All are contiguous
    /// and of `dtype`: f32, f16 or bf16. Nothing waits for the device.
    ///
    /// # Errors
    /// Those of [`RowProduct::launch`].
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
            centred,
        } = self;
        check_dtype(client, dtype)?;
        check_counts([
            ("rows of a norm", rows, i32::MAX as usize),
            ("elements of a norm", width, i32::MAX as usize),
        ])?;
        let bytes = dtype.size();
        check_len("x", x, rows * width, bytes)?;
        check_len("weight", weight, width, bytes)?;
        check_len("out", out, rows * width, bytes)?;
        if rows * width == 0 {
            return Ok(());
        }

        let lanes = lanes(client, dtype, width, &[x, weight, out]);
        check_kernel(client, "row norm", (norm::UNITS + norm::ADDERS) * 4)?;
        unsafe {
            norm::norm::launch_unchecked(
                client,
                grid(client, rows)?,
                CubeDim::new_1d(norm::UNITS as u32),
                address_type([x.size()].into_iter(), bytes),
                lanes,
                BufferArg::from_raw_parts(x.clone(), rows * width / lanes),
                BufferArg::from_raw_parts(weight.clone(), width / lanes),
                BufferArg::from_raw_parts(out.clone(), rows * width / lanes),
                rows as u32,
                (width / lanes) as u32,
                width as f32,
                epsilon as f32,
                centred,
                lanes,
                Rounding::of(client.name(), dtype),
                dtype,
            );
        }
        let class = Class::Norm { centred, lanes };
        launched(client, Engine::Unit, "row norm", dtype, class, out)
    }
}

/// Elements of the longest vectors that an axis is whole ones of, and that buffers begin at multiples of.
fn lanes(client: &Client, dtype: ElemType, axis: usize, buffers: &[&Handle; 3]) -> usize {
    let bytes = dtype.size();
    let most = (VECTOR_BYTES / bytes).min(client.properties().hardware.max_vector_size);
    let fits = |lanes: usize| {
        let starts = buffers
            .iter()
            .map(|buffer| buffer.offset_start.unwrap_or(0));
        let mut starts = starts.map(|start| start as usize);
        axis.is_multiple_of(lanes) && starts.all(|start| start.is_multiple_of(lanes * bytes))
    };
    let halves = std::iter::successors(Some(most), |lanes| Some(lanes / 2));
    halves
        .take_while(|lanes| *lanes > 1)
        .find(|lanes| fits(*lanes))
        .unwrap_or(1)
}

fn check_counts<const N: usize>(
    counts: [(&'static str, usize, usize); N],
) -> Result<(), CubeError> {
    match counts
        .into_iter()
        .find(|(_, seen, accepted)| seen > accepted)
    {
        Some((what, seen, accepted)) => Err(CubeError::Count {
            what,
            seen,
            accepted,
        }),
        None => Ok(()),
    }
}

fn check_kernel(client: &Client, kernel: &'static str, shared: usize) -> Result<(), CubeError> {
    let hardware = &client.properties().hardware;
    check_needs(
        client,
        kernel,
        [
            ("buffers", BUFFERS, hardware.max_bindings as usize),
            (
                "bytes of shared memory",
                shared,
                hardware.max_shared_memory_size,
            ),
            (
                "units a cube",
                product::UNITS,
                hardware.max_units_per_cube as usize,
            ),
        ],
    )
}

/// One size for both kinds of kernels.
const _: () = assert!(product::UNITS == norm::UNITS);
