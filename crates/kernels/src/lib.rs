//! Block-sparse attention kernels for the patterns of [`s2_attention_pattern`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`problem`] | [`AttentionProblem`]: shapes, pattern, scale and sequences of one call, checked once |
//! | [`packed`] | [`PackedSequences`]: documents of different lengths, one after the other |
//! | [`cache`] | the cache of keys and values: which page holds which block of a sequence |
//! | [`sequence`] | positions of tokens, and the rows that hold them |
//! | [`mod@reference`] | the f64 host oracle of every pass, from the written rule of the pattern alone |
//! | `cpu` (feature `cpu`) | the multi-threaded CPU engine: forward and backward over kept blocks only |
//!
//! The crate knows nothing of Burn: engines take slices and strides, so that any host can call them.

pub mod cache;
#[cfg(feature = "cpu")]
pub mod cpu;
#[cfg(feature = "cubecl")]
pub mod cube;
pub mod error;
pub mod packed;
pub mod problem;
pub mod reference;
pub mod sequence;

pub use error::ProblemError;
pub use packed::PackedSequences;
pub use problem::{AttentionProblem, AttentionShape};
pub use sequence::{LeftPadding, Sequence, SequenceSpan};
