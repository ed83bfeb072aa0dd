//! Burn's own matrix product: the yardstick of what the device computes.

use burn::tensor::{Device, Distribution, Tensor};

use super::Matmul;
use super::burn::{dtype, wait};
use crate::harness::{Effort, Timing, TooSlow, measure};

impl Matmul {
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
