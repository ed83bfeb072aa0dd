//! What the units that share rows tell each other: maxima and sums.

use cubecl::prelude::*;

use super::rows::owned_row;
use super::scratch::{Scratch, ScratchExpand};
use super::size::CubeSize;

#[cube]
impl<N: Size> Scratch<N> {
    /// The largest of `values[i]` among the units that share row `i`.
    pub(super) fn row_max(&mut self, values: &mut Array<f32>) {
        let size = comptime!(self.size);
        if comptime!(!size.planes) {
            self.share(&*values);
        }
        #[unroll]
        for i in 0..comptime!(size.rows()) {
            if comptime!(size.planes) {
                #[unroll]
                for step in 0..comptime!(size.across.ilog2()) {
                    let other = plane_shuffle_xor(values[i], comptime!(1u32 << step));
                    values[i] = max(values[i], other);
                }
            } else {
                #[unroll]
                for unit in 0..size.across {
                    let other = self.weights[owned_row(i, size) as usize * size.across + unit];
                    values[i] = max(values[i], other);
                }
            }
        }
    }

    /// The sum of `values[i]` over the units that share row `i`, in the same order for all of them.
    pub(super) fn row_sum(&mut self, values: &mut Array<f32>) {
        let size = comptime!(self.size);
        if comptime!(!size.planes) {
            self.share(&*values);
        }
        #[unroll]
        for i in 0..comptime!(size.rows()) {
            let mut sum = f32::new(0.0);
            if comptime!(size.planes) {
                sum = values[i];
                #[unroll]
                for step in 0..comptime!(size.across.ilog2()) {
                    sum += plane_shuffle_xor(sum, comptime!(1u32 << step));
                }
            } else {
                #[unroll]
                for unit in 0..size.across {
                    sum += self.weights[owned_row(i, size) as usize * size.across + unit];
                }
            }
            values[i] = sum;
        }
    }

    /// Lays `values` of all units out by row in the place of the weights.
    fn share(&mut self, values: &Array<f32>) {
        let size = comptime!(self.size);
        sync_cube();
        #[unroll]
        for i in 0..comptime!(size.rows()) {
            let row = owned_row(i, size) as usize * size.across;
            self.weights[row + UNIT_POS as usize % size.across] = values[i];
        }
        sync_cube();
    }
}

/// Waits for the units that share rows.
#[cube]
pub(super) fn sync_row(#[comptime] size: CubeSize) {
    if comptime!(size.planes) {
        sync_plane();
    } else {
        sync_cube();
    }
}
