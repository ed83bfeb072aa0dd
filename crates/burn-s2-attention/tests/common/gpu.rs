//! The GPU that Burn finds.

use std::io::Write;

use burn::tensor::Device;

use super::found::{HELP, found};

/// The device under test. Where there is none, and `S2_REQUIRE_GPU` does not ask for one, all tests are skipped.
pub fn device() -> Device {
    if !found() {
        // Past the capture of a test's output, which nobody would see.
        let _ = writeln!(std::io::stderr(), "skipped, {HELP}");
        std::process::exit(0);
    }
    Device::default()
}
