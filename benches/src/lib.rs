//! Timing of block-sparse attention beside other implementations, on a catalogue of named problems.
//!
//! `cargo xtask bench` runs it; `cargo run --release -p s2-bench -- --help` shows its own commands.
//!
//! | module | what it holds |
//! |---|---|
//! | [`problems`] | an attention problem and its name |
//! | [`catalogue`] | the catalogue: problems in sets |
//! | [`record`] | the result row, one line of JSON for each measured point |
//! | [`left_out`] | a point that has no row, and why |
//! | [`cache_record`] | the same for the memory of a cache at each length |
//! | [`token_record`] | the same for the time of a token after a long prompt |
//! | [`summary`] | what follows from the rows of one run: speed-ups and shares |
//! | `machine` | device, commit and versions that rows name |
//! | `harness` | warm-up, median of many runs |
//! | `memory` | the most bytes that a pass holds on the host |
//! | `panics` | panics of drivers, as errors |
//! | `table` | the table on the screen |
//! | `peers` | providers in Python: what the script of `benches/baselines` is told and says |
//! | `providers` | who is timed, and on what |
//! | `output` | where the rows of a command go |
//! | `session` | the rows of a run as they come |
//! | `bench` | the `bench` command: problems x providers x passes |
//! | `cache` | the `cache` command: what the cache of a long generation takes |
//! | `tokens` | the `tokens` command: what a token takes after a long prompt, with sparse layers and with dense ones |
//! | `gpu` | the GPU kernels without Burn: inputs, launches, device time, memory |
//! | `kernels` | the `kernels` command: times the GPU kernels and leaves no rows |
//! | `decode` | the `decode` command: times one new token of each sequence against a cache |
//! | `check` | the `check` command: what the GPU kernels hold on this machine's device |
//!
//! Those without a link need the feature `command`, and beside it: `providers` to `bench` a feature with something to
//! time, `timing` (through Burn) or `kernels` (without it); `gpu`, `kernels` and `decode` that feature; `check` its own. A GPU
//! backend's feature turns all of them on.

#[cfg(any(feature = "timing", feature = "kernels"))]
pub mod bench;
#[cfg(feature = "timing")]
pub mod cache;
pub mod cache_record;
pub mod catalogue;
#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "kernels")]
pub mod decode;
#[cfg(feature = "kernels")]
pub mod gpu;
#[cfg(feature = "command")]
pub mod harness;
#[cfg(feature = "kernels")]
pub mod kernels;
pub mod left_out;
#[cfg(feature = "command")]
pub mod machine;
#[cfg(feature = "command")]
pub mod memory;
#[cfg(feature = "command")]
pub mod output;
#[cfg(feature = "command")]
pub mod panics;
#[cfg(any(feature = "timing", feature = "kernels"))]
pub mod peers;
pub mod problems;
#[cfg(any(feature = "timing", feature = "kernels"))]
pub mod providers;
pub mod record;
#[cfg(any(feature = "timing", feature = "kernels"))]
pub mod session;
pub mod summary;
#[cfg(feature = "command")]
pub mod table;
pub mod token_record;
#[cfg(feature = "timing")]
pub mod tokens;

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
    #[doc = include_str!("../../docs/generation.md")]
    struct Generation;
}
