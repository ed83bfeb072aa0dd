//! The operation on Burn tensors, on Burn's CPU backend.

#![cfg(feature = "flex")]

#[path = "../../kernels/tests/support/mod.rs"]
mod support;

use burn::tensor::{DType, Device};

/// The device under test.
fn device() -> Device {
    Device::flex()
}

/// Types that the device computes in.
const ALL_DTYPES: &[DType] = &[DType::F32, DType::F64, DType::F16, DType::BF16];

/// Whether Burn computes an input again with the same bits.
const RECOMPUTES_BITS: bool = true;

/// Types whose results are to repeat bit for bit.
const DTYPES: &[DType] = &[DType::F32, DType::BF16];

#[path = "common"]
mod common {
    pub mod host;
    pub mod panics;
}

mod attention {
    mod combine;
    mod combine_errors;
    mod dense;
    mod errors;
    mod f64;
    mod finite_differences;
    mod golden;
    mod gradients;
    mod half;
    mod layouts;
    mod packed;
    mod poison;
    mod random;
    mod run;
}
