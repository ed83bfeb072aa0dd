//! Products of a few rows, checked and launched.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::checks::{check_few_rows, lanes};
use super::product;
use crate::cube::checks::{check_at_most, check_count, check_len};
use crate::cube::error::CubeError;
use crate::cube::first_launch::{Class, launched};
use crate::cube::launch::{address_type, gcd, grid};
use crate::cube::round::Rounding;
use crate::cube::select::Engine;

/// Rows of a product, at most: their sums are in registers.
pub const MAX_ROWS: usize = 16;

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
    /// Elements from a row or column of `weights` to the next, at least as many as it has.
    pub pitch: usize,
}

impl RowProduct {
    /// Launches the product of `x`, `[rows, inputs]`, and `weights`, `[inputs, outputs]` by its order and pitch, to `out`,
    /// `[rows, outputs]`. `x` and `out` are contiguous, and all are of `dtype`: f32, f16 or bf16. Nothing waits for the device.
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
            pitch,
        } = self;
        check_few_rows(client, dtype)?;
        check_at_most("rows of a product", rows, MAX_ROWS)?;
        check_count("inputs of a product", inputs)?;
        check_count("outputs of a product", outputs)?;
        let bytes = dtype.size();
        check_len("x", x, rows * inputs, bytes)?;
        let (lines, length) = match order {
            MatrixOrder::Rows => (inputs, outputs),
            MatrixOrder::Columns => (outputs, inputs),
        };
        if pitch < length || pitch > i32::MAX as usize {
            return Err(CubeError::Pitch {
                seen: pitch,
                accepted: length,
            });
        }
        let of_weights = match lines * length {
            0 => 0,
            _ => (lines - 1) * pitch + length,
        };
        check_len("weights", weights, of_weights, bytes)?;
        check_len("out", out, rows * outputs, bytes)?;
        if rows * outputs == 0 {
            return Ok(());
        }

        let most = rows.next_power_of_two();
        // Vectors lie along the axis whose elements are next to each other.
        let in_vectors = match order {
            MatrixOrder::Columns => [x, weights],
            MatrixOrder::Rows => [weights, out],
        };
        let lanes = lanes(client, dtype, gcd(length, pitch), &in_vectors);
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
                BufferArg::from_raw_parts(weights.clone(), of_weights / lanes),
                BufferArg::from_raw_parts(out.clone(), rows * outputs / of_out),
                rows as u32,
                inputs_arg as u32,
                outputs_arg as u32,
                (pitch / lanes) as u32,
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
