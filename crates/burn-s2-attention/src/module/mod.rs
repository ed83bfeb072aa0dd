//! Layers with weights, in Burn's `Config` / `init` / `Module` idiom.
//!
//! | file | what it holds |
//! |---|---|
//! | `attention`, `config` | [`S2Attention`]: projections, rotary positions and the sparse operation |
//! | `projection` | fused or separate query, key and value projections |
//! | `rope`, `rope_scaling` | rotary position embedding in the rotate-half convention |
//! | `mlp` | SwiGLU and GELU feed-forward networks |
//! | `norm` | the choice between Burn's RMS norm and layer norm |
//! | `column_major` | [`column_major`]: weights in the order in which generation reads them |
//! | `layers` | linear layers and norms, of many rows and of few |
//! | `error` | what a configuration can be refused for |

mod attention;
mod column_major;
mod config;
mod error;
mod init;
pub(crate) mod layers;
mod mlp;
mod norm;
mod projection;
mod rope;
mod rope_scaling;

pub use attention::S2Attention;
pub use column_major::column_major;
pub use config::S2AttentionConfig;
pub use error::ModuleConfigError;
pub(crate) use init::linear;
pub use mlp::{Mlp, MlpConfig, MlpKind};
pub use norm::NormKind;
pub use projection::{Qkv, QkvProjection, SeparateQkv};
pub use rope::{Rope, RopeConfig};
pub use rope_scaling::RopeScaling;
