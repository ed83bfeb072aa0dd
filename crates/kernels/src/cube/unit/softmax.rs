//! The softmax of rows whose scores come a few at a time, and what it sums.

use cubecl::prelude::*;

use super::mask::bit;
use super::scratch::Scratch;
use super::size::CubeSize;

/// Where a row's maximum starts.
const LOWEST: f32 = f32::MIN;

/// The rows of a unit: maxima, its part of the sums of weights, and of weighted values.
#[derive(CubeType)]
pub(super) struct Softmax<N: Size> {
    pub(super) maxima: Array<f32>,
    pub(super) sums: Array<f32>,
    pub(super) values: Array<Vector<f32, N>>,
    #[cube(comptime)]
    size: CubeSize,
    /// Vectors of a row of values that a unit holds.
    #[cube(comptime)]
    held: usize,
}

#[cube]
pub(super) fn softmax<N: Size>(
    #[comptime] value_dim: usize,
    #[comptime] size: CubeSize,
) -> Softmax<N> {
    let (rows, held) = comptime!((size.rows(), size.held(value_dim)));
    let mut maxima = Array::<f32>::new(rows);
    let mut sums = Array::<f32>::new(rows);
    let mut values = Array::<Vector<f32, N>>::new(comptime!(rows * held));
    #[unroll]
    for i in 0..rows {
        maxima[i] = f32::new(LOWEST);
        sums[i] = f32::new(0.0);
    }
    #[unroll]
    for n in 0..comptime!(rows * held) {
        values[n] = Vector::new(0.0f32);
    }
    Softmax::<N> {
        maxima,
        sums,
        values,
        size,
        held,
    }
}

#[cube]
impl<N: Size> Softmax<N> {
    /// Makes products weights, those whose `bits` are set, and lowers what was summed by as much as the maxima grow.
    pub(super) fn weigh(
        &mut self,
        products: &mut Array<f32>,
        bits: u32,
        scale: f32,
        scratch: &mut Scratch<N>,
    ) {
        let (rows, columns, held) = comptime!((self.size.rows(), self.size.columns(), self.held));
        let mut tops = Array::<f32>::new(rows);
        #[unroll]
        for i in 0..rows {
            tops[i] = self.maxima[i];
            #[unroll]
            for j in 0..columns {
                let n = comptime!(i * columns + j);
                products[n] *= scale;
                let score = select(bit(bits, n), products[n], f32::new(LOWEST));
                tops[i] = max(tops[i], score);
            }
        }
        scratch.row_max(&mut tops);
        #[unroll]
        for i in 0..rows {
            let kept = (self.maxima[i] - tops[i]).exp();
            self.maxima[i] = tops[i];
            self.sums[i] *= kept;
            #[unroll]
            for u in 0..held {
                self.values[i * held + u] *= Vector::<f32, N>::new(kept);
            }
            #[unroll]
            for j in 0..columns {
                let n = comptime!(i * columns + j);
                let weight = select(bit(bits, n), (products[n] - tops[i]).exp(), f32::new(0.0));
                self.sums[i] += weight;
                products[n] = weight;
            }
        }
    }
}
