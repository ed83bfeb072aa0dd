//! Whether Burn finds a device.

use std::panic::catch_unwind;
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};

/// Whether the device that Burn takes by itself is there: the GPU that it is built for.
///
/// # Panics
/// If it finds none and `S2_REQUIRE_GPU` is set.
pub fn found() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let works = || Tensor::<1>::ones([1], &Device::default()).into_scalar::<f32>() == 1.0;
        catch_unwind(works).unwrap_or(false)
    });
    assert!(
        found || std::env::var_os("S2_REQUIRE_GPU").is_none(),
        "{HELP}"
    );
    found
}

pub const HELP: &str = "no GPU found: install `mesa-vulkan-drivers` and set CUBECL_WGPU_DEFAULT_DEVICE=Cpu to run on the CPU";
