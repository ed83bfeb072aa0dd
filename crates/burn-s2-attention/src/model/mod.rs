//! A decoder-only transformer whose layers mix dense and S2 attention, and writing with it.
//!
//! | file | what it holds |
//! |---|---|
//! | `config`, `transformer`, `block` | [`HybridTransformer`] and its layers |
//! | `cached` | the model on the new tokens of a [`KvCache`](crate::cache::KvCache) |
//! | `generation` | [`GenerationConfig`], and what generation gives |
//! | `generate`, `generator` | [`HybridTransformer::generate`], and [`Generator`], which goes step by step |
//! | `sampling` | [`Sampler`]: tokens from logits |

mod block;
mod cached;
mod config;
mod generate;
mod generation;
mod generator;
mod sampling;
mod transformer;

pub use block::TransformerBlock;
pub use config::HybridTransformerConfig;
pub use generation::{
    CacheUse, FinishReason, GeneratedSequence, GeneratedToken, Generation, GenerationConfig,
    GenerationError,
};
pub use generator::Generator;
pub use sampling::Sampler;
pub use transformer::HybridTransformer;
