//! Which rows are a unit's, and what it writes of them.

use cubecl::prelude::*;

use super::size::{CubeSize, LANES};
use crate::cube::config::Config;
use crate::cube::round::rounded;
use crate::cube::rows::HeadRows;
use crate::cube::vector_tensor::VectorTensor;

/// The `i`-th owned row of this unit.
#[cube]
pub(super) fn owned_row(#[comptime] i: usize, #[comptime] size: CubeSize) -> u32 {
    UNIT_POS / comptime!(size.across as u32) + comptime!((i * size.down()) as u32)
}

/// The `j`-th visited row of this unit.
#[cube]
pub(super) fn visited_row(#[comptime] j: usize, #[comptime] size: CubeSize) -> u32 {
    UNIT_POS % comptime!(size.across as u32) + comptime!((j * size.across) as u32)
}

/// The row of the `n`-th vector that this unit stages of slices of `vectors` a row.
#[cube]
pub(super) fn staged_row(
    #[comptime] n: usize,
    #[comptime] vectors: usize,
    #[comptime] size: CubeSize,
) -> u32 {
    (UNIT_POS + comptime!((n * size.units) as u32)) / comptime!(vectors as u32)
}

/// Whether this unit speaks for its rows.
#[cube]
pub(super) fn first_across(#[comptime] size: CubeSize) -> bool {
    UNIT_POS % comptime!(size.across as u32) == 0u32
}

/// Makes the sums of a row zeros where it attends nothing: rows that others of the tile attend may be infinite, and 0
/// times that is not 0.
#[cube]
pub(super) fn clear_row<N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    #[comptime] i: usize,
    empty: bool,
    #[comptime] dim: usize,
    #[comptime] size: CubeSize,
) {
    let held = comptime!(size.held(dim));
    if empty {
        #[unroll]
        for u in 0..held {
            sums[i * held + u] = Vector::new(0.0f32);
        }
    }
}

/// Writes this unit's part of a row.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn store_row<E: Float, N: Size>(
    tensor: &mut VectorTensor<E, N>,
    rows: &HeadRows,
    token: i32,
    sums: &Array<Vector<f32, N>>,
    #[comptime] i: usize,
    factor: f32,
    #[comptime] dim: usize,
    #[comptime] config: Config,
) {
    let size = comptime!(config.unit);
    let held = comptime!(size.held(dim));
    #[unroll]
    for u in 0..held {
        let column = UNIT_POS as usize % size.across + comptime!(u * size.across);
        if column < comptime!(dim / LANES) {
            let result = sums[i * held + u] * Vector::<f32, N>::new(factor);
            tensor.vectors[rows.at(token) + column] =
                rounded::<E, N>(result, LANES, config.results);
        }
    }
}
