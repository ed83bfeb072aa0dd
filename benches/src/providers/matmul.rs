//! Burn's own matrix product: the yardstick of what the device computes.

use burn::tensor::{Device, Distribution, Tensor};

use super::{dtype, wait};
use crate::harness::{Effort, Timing, TooSlow, measure};
use crate::record::Dtype;

/// The product of two square matrices.
#[derive(Clone, Copy, Debug)]
pub struct Matmul {
    /// Rows and columns.
    pub size: usize,
    /// Type of the elements.
    pub dtype: Dtype,
}

impl Matmul {
    /// The name in the rows.
    pub fn problem(&self) -> String {
        format!("matmul_{}_{}", self.size, self.dtype)
    }

    /// Floating-point operations: a multiplication and an addition for each of `size^3` terms.
    pub fn flops(&self) -> f64 {
        2.0 * (self.size as f64).powi(3)
    }

    /// Times it on normally distributed matrices.
    ///
    /// # Errors
    /// If it would take too long.
    pub fn time(&self, device: &Device, effort: &Effort) -> Result<Timing, TooSlow> {
        device.seed(7);
        let random = || {
            Tensor::<2>::random(
                [self.size; 2],
                Distribution::Normal(0.0, 1.0),
                (device, dtype(self.dtype)),
            )
        };
        let (a, b) = (random(), random());
        measure(
            effort,
            || (a.clone(), b.clone()),
            |(a, b)| {
                let product = a.matmul(b);
                wait(device);
                product
            },
        )
    }
}
