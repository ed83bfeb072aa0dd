//! The cache, and what models and generation do with it, on Burn's CPU backend.

#![cfg(feature = "flex")]

#[path = "../../kernels/tests/support/mod.rs"]
mod support;

use burn::tensor::Device;

#[path = "common"]
mod common {
    pub mod cast;
    pub mod host;
    pub mod layers;
    pub mod models;
    pub mod panics;
    pub mod parameters;
    pub mod products;
    pub mod tensors;
}

mod cache {
    mod attend;
    mod bytes;
    mod errors;
    mod generate;
    mod generation_errors;
    mod model;
    mod random;
    mod sampling;
    mod types;
}

/// A CPU holds all cases in seconds.
fn every_case() -> bool {
    true
}

/// The device of tests that GPUs are held to as well.
fn device() -> Device {
    Device::flex()
}
