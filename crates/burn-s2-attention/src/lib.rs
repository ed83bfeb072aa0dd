//! S2-Attention for the [Burn](https://burn.dev) deep learning framework: attention that is block-sparse in a different
//! way in each head, so that it costs a fraction of dense attention and its heads together still see everything.
//!
//! Each head attends a local window and every V-th block before it; neighbouring heads take different blocks
//! (S2-Attention: Hardware-Aware Context Sharding Among Attention Heads, arXiv 2407.17678).
//!
//! No backend is enabled by default. Select `flex` (CPU, pure Rust) or a GPU backend by Burn's feature names.
//!
//! | module | what it holds |
//! |---|---|
//! | [`functional`] | the operation on tensors: [`s2_attention`], [`s2_attention_with_lse`], [`combine`] |
//! | [`packed`] | the operation on documents of different lengths without padding: [`s2_attention_packed`] |
//! | [`module`] | [`module::S2Attention`] and the other layers of a transformer |
//! | [`model`] | [`model::HybridTransformer`]: a language model of sparse and dense layers, and writing with it |
//! | [`cache`] | [`cache::KvCache`]: keys and values of earlier tokens, those that later ones attend |
//! | [`ops`], `row_ops` | the backend extension traits |
//!
//! Patterns come from [`s2_attention_pattern`], whose types are re-exported here.
//!
//! | feature | what it adds |
//! |---|---|
//! | `autodiff` (default) | gradients |
//! | `flex` | Burn's pure Rust CPU backend, with a fused multi-threaded kernel |
//! | `wgpu`, `vulkan`, `metal`, `cuda`, `rocm` | Burn's GPU backends, with kernels in CubeCL |
//! | `cuda-cpp` | `cuda` through NVRTC: adds what Hopper needs |

mod backends;
pub mod cache;
pub mod error;
pub mod functional;
pub mod model;
pub mod module;
pub mod ops;
mod options;
pub mod packed;
#[cfg(feature = "cubecl")]
pub mod row_ops;

#[cfg(all(test, feature = "flex"))]
#[path = "../tests/common/found.rs"]
mod found;

pub use error::S2AttentionError;
pub use functional::{
    combine, s2_attention, s2_attention_with_lse, try_combine, try_s2_attention,
    try_s2_attention_with_lse,
};
pub use ops::Layout;
pub use options::S2AttentionOptions;
pub use packed::{
    s2_attention_packed, s2_attention_packed_with_lse, try_s2_attention_packed,
    try_s2_attention_packed_with_lse,
};
pub use s2_attention_kernels::{LeftPadding, PackedSequences, ProblemError, SequenceSpan};
pub use s2_attention_pattern::*;
