//! Timing of block-sparse attention beside other implementations, on a catalogue of named problems.
//!
//! `cargo xtask bench` runs it; `cargo run --release -p s2-bench -- --help` shows its own commands.
//!
//! | module | what it holds |
//! |---|---|
//! | [`problems`] | the catalogue: named problems, in sets |
//! | [`record`] | the result row, one line of JSON for each measured point |
//! | [`summary`] | what follows from the rows of one run: speed-ups and shares |
//! | `machine` | device, commit and versions that rows name |
//! | `harness` | warm-up, median of many runs |
//! | `memory` | the most bytes that a pass holds |
//! | `providers` | what is timed: this library, Burn's dense attention, Burn's matmul |
//! | `bench` | the `bench` command: problems x providers x passes |
//! | `table` | the table on the screen |
//! | `check` | the `check` command: what the GPU kernels hold on this machine's device |
//! | `kernels` | the `kernels` command: times the GPU kernels alone |
//!
//! Those without a link need the feature `timing`, the last two `check`; every GPU backend's feature turns both on.

#[cfg(feature = "timing")]
pub mod bench;
#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "timing")]
pub mod harness;
#[cfg(feature = "check")]
pub mod kernels;
#[cfg(feature = "timing")]
pub mod machine;
#[cfg(feature = "timing")]
pub mod memory;
pub mod problems;
#[cfg(feature = "timing")]
pub mod providers;
pub mod record;
pub mod summary;
#[cfg(feature = "timing")]
pub mod table;

/// The examples of README and book, as doc tests.
#[cfg(all(doctest, feature = "flex"))]
mod documents {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/introduction.md")]
    struct Introduction;
    #[doc = include_str!("../../docs/patterns.md")]
    struct Patterns;
    #[doc = include_str!("../../docs/training.md")]
    struct Training;
}
