//! The GPU that Burn finds.

use std::io::Write;
use std::panic::catch_unwind;
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};

/// Whether Burn finds a GPU.
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

/// The device under test. Where there is none, and `S2_REQUIRE_GPU` does not ask for one, all tests are skipped.
#[allow(dead_code)] // Unit tests go on with the CPU where there is none.
pub fn device() -> Device {
    if !found() {
        // Past the capture of a test's output, which nobody would see.
        let _ = writeln!(std::io::stderr(), "skipped, {HELP}");
        std::process::exit(0);
    }
    Device::default()
}

const HELP: &str = "no GPU found: install `mesa-vulkan-drivers` and set CUBECL_WGPU_DEFAULT_DEVICE=Cpu to run on the CPU";
