//! A decoder-only transformer whose layers mix dense and S2 attention.

mod block;
mod config;
mod transformer;

pub use block::TransformerBlock;
pub use config::HybridTransformerConfig;
pub use transformer::HybridTransformer;
