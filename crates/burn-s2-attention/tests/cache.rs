//! The cache, and what models and generation do with it, on Burn's CPU backend.

#![cfg(feature = "flex")]

#[path = "../../kernels/tests/support/mod.rs"]
mod support;

use burn::tensor::Device;

mod cache {
    mod attend;
    mod bytes;
    mod errors;
    mod generate;
    mod generation_errors;
    mod model;
    mod random;
    mod sampling;
    #[path = "../modules/support.rs"]
    #[allow(dead_code)]
    mod tensors;
    mod types;
}

/// The device of tests that GPUs are held to as well.
fn device() -> Device {
    Device::flex()
}
