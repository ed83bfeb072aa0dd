//! Rotary positions of rows, from a table.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::checks::{check_few_rows, lanes};
use crate::cube::checks::{check_count, check_len, check_tensor};
use crate::cube::error::CubeError;
use crate::cube::first_launch::{Class, launched};
use crate::cube::launch::{address_type, gcd, grid};
use crate::cube::round::{Rounding, rounded};
use crate::cube::select::Engine;
use crate::cube::tensors::DeviceTensor;
use crate::cube::vector_tensor::{VectorTensor, tensor_arg};

/// Units of a cube.
pub(in crate::cube) const UNITS: usize = 128;

/// Rotary positions in the rotate-half convention: the pairs `(i, i + width / 2)` of each row and head are turned by the angles of
/// the row's position ([Su et al.](https://arxiv.org/abs/2104.09864)). In f32, rounded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRotation {
    /// Rows.
    pub rows: usize,
    /// Heads of a row.
    pub heads: usize,
    /// Elements of a head, even.
    pub width: usize,
    /// Positions of the table.
    pub limit: usize,
}

impl RowRotation {
    /// Launches the rotation of `x`, `[1, heads, rows, width]` by its strides, to `out`, contiguous `[rows, heads, width]`, both of
    /// `dtype`: f32, f16 or bf16. `positions` are i32 `[rows]`, below `limit`; `cosines` and `sines` are f32 `[limit, width / 2]`.
    /// Nothing waits for the device.
    ///
    /// # Errors
    /// Those of [`RowProduct::launch`](super::RowProduct::launch), and [`CubeError::Strides`], [`CubeError::OddWidth`] and
    /// [`CubeError::EmptyTable`].
    pub fn launch(
        &self,
        client: &Client,
        dtype: ElemType,
        x: &DeviceTensor,
        [cosines, sines]: [&Handle; 2],
        positions: &Handle,
        out: &Handle,
    ) -> Result<(), CubeError> {
        let &Self {
            rows,
            heads,
            width,
            limit,
        } = self;
        check_few_rows(client, dtype)?;
        let elements = rows.saturating_mul(heads).saturating_mul(width);
        check_count("rows that are turned", rows)?;
        check_count("heads of a row", heads)?;
        check_count("positions of a table", limit)?;
        if width % 2 != 0 {
            return Err(CubeError::OddWidth { seen: width });
        }
        if limit == 0 && elements > 0 {
            return Err(CubeError::EmptyTable { rows });
        }
        let half = width / 2;
        let bytes = dtype.size();
        check_len("cosines", cosines, limit * half, size_of::<f32>())?;
        check_len("sines", sines, limit * half, size_of::<f32>())?;
        check_len("positions", positions, rows, size_of::<i32>())?;
        check_len("out", out, elements, bytes)?;
        if elements == 0 {
            return Ok(());
        }

        // All that a vector steps over is whole ones.
        let steps = [half, x.strides[1], x.strides[2]].into_iter().fold(0, gcd);
        let tables = [cosines, sines].map(|table| table.offset_start.unwrap_or(0));
        let of_tables = tables
            .into_iter()
            .fold(0, |a, start| gcd(a, start as usize / 4));
        let steps = gcd(steps, of_tables);
        let lanes = lanes(client, dtype, steps, &[&x.handle, out]);
        let sizes = [1, heads, rows, width];
        check_tensor("x", &x.handle, 0, x.strides, sizes, (lanes, dtype))?;
        let sizes_of_buffers = [&x.handle, out, cosines].map(Handle::size);
        unsafe {
            rotate::launch_unchecked(
                client,
                grid(client, (elements / 2 / lanes).div_ceil(UNITS))?,
                CubeDim::new_1d(UNITS as u32),
                address_type(sizes_of_buffers.into_iter(), bytes),
                lanes,
                tensor_arg(x, (lanes, dtype)),
                BufferArg::from_raw_parts(cosines.clone(), limit * half / lanes),
                BufferArg::from_raw_parts(sines.clone(), limit * half / lanes),
                BufferArg::from_raw_parts(positions.clone(), rows),
                BufferArg::from_raw_parts(out.clone(), elements / lanes),
                heads as u32,
                rows as u32,
                (half / lanes) as u32,
                limit as u32,
                lanes,
                Rounding::of(client.name(), dtype),
                dtype,
            );
        }
        let class = Class::Rotation { lanes };
        launched(client, Engine::Unit, "row rotation", dtype, class, out)
    }
}

/// Turns the pairs `(i, i + width / 2)` of each row and head of `x`, `[1, heads, rows, width]` by its strides, by the angles of its
/// position in `cos` and `sin`, `[limit, width / 2]`, to `out`, which lies as `[rows, heads, width]`. `half` is the vectors of half a
/// row. Grid: vectors of half rows; more end at once.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn rotate<E: Float, N: Size>(
    x: &VectorTensor<E, N>,
    cos: &[Vector<f32, N>],
    sin: &[Vector<f32, N>],
    positions: &[i32],
    out: &mut [Vector<E, N>],
    heads: u32,
    rows: u32,
    half: u32,
    limit: u32,
    #[comptime] lanes: usize,
    #[comptime] rounding: Rounding,
    #[define(E)] _dtype: ElemType,
) {
    let at = CUBE_POS * UNITS + UNIT_POS as usize;
    let (half, heads) = (half as usize, heads as usize);
    let (vector, head, row) = (at % half, at / half % heads, at / half / heads);
    if row < rows as usize {
        // Rows of no sequence have any position.
        let position = clamp(positions[row], 0i32, limit as i32 - 1);
        let angle = position as usize * half + vector;
        let (cos, sin) = (cos[angle], sin[angle]);
        let from = head * x.head + row * x.token + vector;
        let first = Vector::<f32, N>::cast_from(x.vectors[from]);
        let second = Vector::<f32, N>::cast_from(x.vectors[from + half]);
        let to = (row * heads + head) * 2 * half + vector;
        out[to] = rounded::<E, N>(first * cos - second * sin, lanes, rounding);
        out[to + half] = rounded::<E, N>(second * cos + first * sin, lanes, rounding);
    }
}
