//! The CubeCL engines: kernels written once, for every GPU that CubeCL reaches.

// `is_multiple_of` does not exist in kernels.
#![allow(clippy::manual_is_multiple_of)]

mod attention;
mod checks;
mod column_set;
mod columns;
mod config;
mod error;
mod first_launch;
mod index;
mod launch;
#[cfg(all(test, feature = "lowering"))]
mod lowering;
mod mma;
mod rows;
mod select;
mod stats;
mod table;
mod tensors;
mod tile;
mod unit;
mod walk;
mod weight;

pub use attention::CubeAttention;
pub use error::CubeError;
pub use select::{Choice, Engine};
pub use tensors::{DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs};
