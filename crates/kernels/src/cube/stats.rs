//! What the backward passes need of each query, and the pass that computes it.

use cubecl::prelude::*;

use super::rows::{head_rows, load};

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

/// Fills [`Stats`]: one unit a row. `rounding` is what `out` lost by rounding, where `has_rounding`.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(super) fn prepass<E: Float, N: Size>(
    out: &Tensor<Vector<E, N>>,
    rounding: &Tensor<Vector<E, N>>,
    d_out: &Tensor<Vector<E, N>>,
    lse: &[f32],
    d_lse: &[f32],
    stats: &mut [f32],
    rows: u32,
    heads: u32,
    seq_q: u32,
    #[comptime] value_dim: usize,
    #[comptime] lanes: usize,
    #[comptime] has_rounding: bool,
    #[define(E)] _dtype: ElemType,
) {
    let row = ABSOLUTE_POS as u32;
    if row < rows {
        let token = i32::cast_from(row % seq_q);
        let head = ((row / seq_q) % heads) as usize;
        let item = (row / seq_q / heads) as usize;
        // Rows of padding, and queries that attend nothing, may hold anything.
        // Not a number is neither: it is to be seen.
        let empty = lse[row as usize] < f32::MIN;
        let mut sum = f32::new(0.0);
        if !empty {
            let out_rows = head_rows::<E, N>(out, item, head, 0i32.runtime(), lanes);
            let d_out_rows = head_rows::<E, N>(d_out, item, head, 0i32.runtime(), lanes);
            let rounding_rows = head_rows::<E, N>(rounding, item, head, 0i32.runtime(), lanes);
            for at in 0..comptime!(value_dim / lanes) {
                let mut o = load::<E, N>(out, &out_rows, token, at);
                if has_rounding {
                    o += load::<E, N>(rounding, &rounding_rows, token, at);
                }
                let product = o * load::<E, N>(d_out, &d_out_rows, token, at);
                #[unroll]
                for lane in 0..lanes {
                    sum += product.extract(lane);
                }
            }
            sum -= d_lse[row as usize];
        }
        stats[row as usize] = lse[row as usize];
        stats[rows as usize + row as usize] = sum;
    }
}
