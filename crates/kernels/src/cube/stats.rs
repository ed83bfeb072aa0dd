//! What the backward passes need of each query, and the pass that computes it.

use cubecl::prelude::*;

use super::rows::{head_rows, load};
use crate::cube::vector_tensor::VectorTensor;

/// `[2, batch, heads, seq_q]`: lse, then `D = rowsum(dO * O) - d_lse`.
///
/// A row that attends nothing has an lse of `-inf`, as padding has.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Stats {
    pub(super) lse: f32,
    pub(super) d: f32,
}

#[cube]
pub(super) fn stats_at(stats: &[f32], row: usize, rows: usize) -> Stats {
    Stats {
        lse: stats[row],
        d: stats[rows + row],
    }
}

/// Units of a cube of [`prepass`].
pub(super) const UNITS: usize = 128;
/// Elements of its vectors.
pub(super) const LANES: usize = 4;
/// Most units that share a row: so many read 64 bytes of it, or 128 in f32, that follow one another, and more would have fewer loads on
/// their way each.
const SHARERS: usize = 8;

/// Units that share a row of `value_dim` elements: a power of two.
const fn sharers(value_dim: usize) -> usize {
    let vectors = (value_dim / LANES).next_power_of_two();
    if vectors < SHARERS { vectors } else { SHARERS }
}

/// Cubes of [`prepass`] for so many rows.
pub(super) const fn cubes(rows: usize, value_dim: usize) -> usize {
    rows.div_ceil(UNITS / sharers(value_dim))
}

/// Fills [`Stats`]: a few units a row, each of which sums what it reads. `rounding` is what `out` lost by rounding, where `has_rounding`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn prepass<E: Float, N: Size>(
    out: &VectorTensor<E, N>,
    rounding: &VectorTensor<E, N>,
    d_out: &VectorTensor<E, N>,
    lse: &[f32],
    d_lse: &[f32],
    stats: &mut [f32],
    rows: u32,
    heads: u32,
    seq_q: u32,
    #[comptime] value_dim: usize,
    #[comptime] has_rounding: bool,
    #[define(E)] _dtype: ElemType,
) {
    let (sharers, vectors) = comptime!((sharers(value_dim), value_dim / LANES));
    let mut sums = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let of_row = unit % sharers;
    let row = CUBE_POS * comptime!(UNITS / sharers) + unit / sharers;
    let is_row = row < rows as usize;
    // Rows of padding, and queries that attend nothing, may hold anything.
    // Not a number is neither: it is to be seen.
    let mut empty = true.runtime();
    if is_row {
        empty = lse[row] < f32::MIN;
    }
    let mut sum = f32::new(0.0);
    if !empty {
        let token = i32::cast_from(row as u32 % seq_q);
        let head = ((row as u32 / seq_q) % heads) as usize;
        let item = (row as u32 / seq_q / heads) as usize;
        let out_rows = head_rows::<E, N>(out, item, head, 0i32.runtime());
        let d_out_rows = head_rows::<E, N>(d_out, item, head, 0i32.runtime());
        let rounding_rows = head_rows::<E, N>(rounding, item, head, 0i32.runtime());
        #[unroll]
        for n in 0..comptime!(vectors.div_ceil(sharers)) {
            let at = of_row + comptime!(n * sharers);
            if comptime!((n + 1) * sharers <= vectors).runtime() || at < vectors {
                let mut o = load::<E, N>(out, &out_rows, token, at);
                if has_rounding {
                    o += load::<E, N>(rounding, &rounding_rows, token, at);
                }
                let product = o * load::<E, N>(d_out, &d_out_rows, token, at);
                #[unroll]
                for lane in 0..LANES {
                    sum += product.extract(lane);
                }
            }
        }
    }
    sums[unit] = sum;
    sync_cube();
    if is_row && of_row == 0usize {
        let mut d = f32::new(0.0);
        #[unroll]
        for n in 0..sharers {
            d += sums[unit + n];
        }
        if !empty {
            d -= d_lse[row];
        }
        stats[row] = lse[row];
        stats[rows as usize + row] = d;
    }
}
