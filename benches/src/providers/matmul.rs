//! Burn's own matrix product: the yardstick of what the device computes.

use burn::tensor::{Device, Distribution, Tensor};

use super::burn::{dtype, wait};
use super::{Matmul, host};
use crate::harness::{Effort, Timing, TooSlow, measure};

impl Matmul {
    /// Times it on normally distributed matrices.
    ///
    /// # Errors
    /// If it would take too long.
    pub fn time(&self, device: &Device, effort: &Effort) -> Result<Timing, TooSlow> {
        let matrices = self.matrices(device);
        measure(
            effort,
            || matrices.clone(),
            |[a, b]| {
                let product = a.matmul(b);
                wait(device);
                product
            },
        )
    }

    /// The host's part of a call.
    ///
    /// # Errors
    /// A device that fails, and calls that would take too long.
    pub fn host(&self, device: &Device, effort: &Effort) -> anyhow::Result<Timing> {
        let [a, b] = self.matrices(device);
        host::time(device, effort, || a.clone().matmul(b.clone()))
    }

    fn matrices(&self, device: &Device) -> [Tensor<2>; 2] {
        device.seed(7);
        [(); 2].map(|()| {
            let normal = Distribution::Normal(0.0, 1.0);
            Tensor::random([self.size; 2], normal, (device, dtype(self.dtype)))
        })
    }
}
