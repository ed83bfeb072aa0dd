//! Block-sparse attention kernels for the patterns of [`s2_attention_pattern`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`problem`] | [`AttentionProblem`]: shapes, pattern, scale and positions of one call, checked once |
//! | [`mod@reference`] | the f64 host oracle of every pass, from the written rule of the pattern alone |
//! | `cpu` (feature `cpu`) | the multi-threaded CPU engine: forward and backward over kept blocks only |
//!
//! The crate knows nothing of Burn: engines take slices and strides, so that any host can call them.

#[cfg(feature = "cpu")]
pub mod cpu;
#[cfg(feature = "cubecl")]
pub mod cube;
pub mod error;
pub mod problem;
pub mod reference;

pub use error::ProblemError;
pub use problem::{AttentionProblem, AttentionShape, SequenceSpan};
