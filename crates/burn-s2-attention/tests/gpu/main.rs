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
#[path = "../attention/run.rs"]
mod run;
#[path = "../../../kernels/tests/support/mod.rs"]
mod support;
#[path = "../common"]
mod common {
    pub mod host;
    pub mod layers;
    pub mod models;
    pub mod panics;
    pub mod parameters;
    pub mod tensors;
}

use std::io::Write;
use std::panic::catch_unwind;
use std::sync::OnceLock;

use burn::tensor::{DType, Device, Tensor};

/// The device under test. Where there is none, and `S2_REQUIRE_GPU` does not ask for one, all tests are skipped.
fn device() -> Device {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let works = || Tensor::<1>::ones([1], &Device::default()).into_scalar::<f32>() == 1.0;
        catch_unwind(works).unwrap_or(false)
    });
    if !found {
        let help = "no GPU found: install `mesa-vulkan-drivers` and set CUBECL_WGPU_DEFAULT_DEVICE=Cpu to run on the CPU";
        assert!(std::env::var_os("S2_REQUIRE_GPU").is_none(), "{help}");
        // Past the capture of a test's output, which nobody would see.
        let _ = writeln!(std::io::stderr(), "skipped, {help}");
        std::process::exit(0);
    }
    Device::default()
}

/// Types that every GPU computes in.
const ALL_DTYPES: &[DType] = &[DType::F32];

/// Whether Burn computes an input again with the same bits: it may fuse operations otherwise than before.
const RECOMPUTES_BITS: bool = false;

/// Types whose results are to repeat bit for bit.
const DTYPES: &[DType] = &[DType::F32];
