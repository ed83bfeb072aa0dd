//! The CubeCL engines on whatever device the enabled runtime finds: each check at the size of a CPU.

#[path = "../checks/mod.rs"]
mod checks;

use std::path::Path;

use checks::engine::Engine;
use checks::storage::Storage;
use checks::support::golden;
use checks::{CHECKS, Effort, Share};
use cubecl::client::Client;

/// The device under test, or `None` where there is none and none is asked for.
///
/// # Panics
/// Where `S2_REQUIRE_GPU` is set and there is no device.
fn client() -> Option<Client> {
    let found = std::panic::catch_unwind(|| cubecl::Device::default().client());
    if found.is_err() {
        let help = "no GPU found: install `mesa-vulkan-drivers` and set CUBECL_WGPU_DEFAULT_DEVICE=Cpu to run on the CPU";
        assert!(std::env::var_os("S2_REQUIRE_GPU").is_none(), "{help}");
        eprintln!("skipped, {help}");
    }
    found.ok()
}

/// Runs the check of that name.
///
/// # Panics
/// Where it misses.
fn hold(name: &str) {
    let Some(client) = client() else {
        return;
    };
    // Random calls and launches take most of the time; a run of everything has more of them.
    let all = std::env::var_os("S2_ALL").is_some();
    let effort = Effort {
        golden: golden::all_in(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden"
        ))),
        random: if all { 60 } else { 30 },
        runs: if all { 20 } else { 10 },
        first: 0,
        share: Share::WHOLE,
        repeats: if all { 20 } else { 5 },
        all_kernels: false,
        types: Storage::ALL.to_vec(),
    };
    let check = CHECKS.iter().find(|check| check.name == name);
    let check = check.unwrap_or_else(|| panic!("no check is called {name}"));
    match (check.run)(&Engine::new(client), &effort) {
        Ok(line) => println!("{name}: {line}"),
        Err(miss) => panic!("{name}: {miss}"),
    }
}

/// A test for each check, and a test that none is forgotten.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                hold(stringify!($name));
            }
        )*

        #[test]
        fn every_check_has_a_test() {
            assert_eq!(CHECKS.map(|check| check.name), [$(stringify!($name)),*]);
        }
    };
}

tests!(
    golden, random, halves, tiles, layouts, subsets, repeat, needle, poison, nan, packed, decode,
    few_rows, edges, blocks, extremes, long, large, errors, mutations,
);
