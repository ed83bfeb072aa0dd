//! The operation on Burn tensors, on the GPU that Burn finds: through fusion, autodiff and checkpointing.

#![cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
))]

mod cache;
#[path = "../cache/attend.rs"]
mod cache_attend;
#[path = "../cache/model.rs"]
mod cache_model;
#[path = "../attention/combine.rs"]
mod combine;
mod errors;
#[path = "../attention/golden.rs"]
mod golden;
#[path = "../attention/gradients.rs"]
mod gradients;
#[path = "../attention/layouts.rs"]
mod layouts;
mod model;
#[path = "../attention/packed.rs"]
mod packed;
mod rows;
#[path = "../attention/run.rs"]
mod run;
#[path = "../../../kernels/tests/support/mod.rs"]
mod support;
#[path = "../common"]
mod common {
    pub mod found;
    pub mod gpu;
    pub mod host;
    pub mod layers;
    pub mod models;
    pub mod panics;
    pub mod parameters;
    pub mod products;
    pub mod tensors;
}

use burn::tensor::DType;
use common::gpu::device;

/// Whether tests hold all cases that they have, and not those alone that differ most: a CPU that stands in for a GPU takes
/// minutes for the rest.
fn every_case() -> bool {
    std::env::var_os("S2_ALL").is_some()
}

/// Types that every GPU computes in.
const ALL_DTYPES: &[DType] = &[DType::F32];

/// Whether Burn computes an input again with the same bits: it may fuse operations otherwise than before.
const RECOMPUTES_BITS: bool = false;

/// Types whose results are to repeat bit for bit.
const DTYPES: &[DType] = &[DType::F32];
