//! `s2-bench` as a program that needs a device.
//!
//! Included by its path: tests that need no feature share `mod.rs`, and have no program to run.

use std::process::{Command, Output};

/// `None` where there is no device and `S2_REQUIRE_GPU` does not ask for one.
pub fn s2_bench(arguments: &[&str]) -> Option<Output> {
    let output = Command::new(env!("CARGO_BIN_EXE_s2-bench"))
        .args(arguments)
        .output()
        .unwrap();
    let no_device = stderr(&output).contains("no device");
    let required = std::env::var_os("S2_REQUIRE_GPU").is_some();
    assert!(!(no_device && required), "{}", stderr(&output));
    (!no_device).then_some(output)
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
