//! The CubeCL engines: kernels written once, for every GPU that CubeCL reaches.

// `is_multiple_of` does not exist in kernels.
#![allow(clippy::manual_is_multiple_of)]

mod attention;
mod columns;
mod config;
mod error;
mod index;
mod rows;
mod stats;
mod tile;
mod unit;
mod walk;

pub use attention::{CubeAttention, DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs};
pub use error::CubeError;
