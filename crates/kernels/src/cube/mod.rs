//! The CubeCL engines: kernels written once, for every GPU that CubeCL reaches.

// `is_multiple_of` does not exist in kernels.
#![allow(clippy::manual_is_multiple_of)]

mod attention;
mod cache;
mod checks;
mod column_set;
mod columns;
mod config;
mod decode;
mod error;
mod few_rows;
mod first_launch;
mod index;
mod indexed;
mod keep;
mod kept;
mod launch;
#[cfg(all(test, feature = "lowering"))]
mod lowering;
mod mma;
mod place;
mod round;
mod rows;
mod select;
mod softmax;
mod split;
mod stats;
mod table;
mod tensors;
mod tile;
mod trial;
mod tune;
mod unit;
mod vector_tensor;
mod walk;
mod weight;
mod wgmma;

pub use attention::CubeAttention;
pub use cache::CacheSide;
pub use decode::{CubeDecode, DecodeChoice};
pub use error::CubeError;
pub use few_rows::{MAX_ROWS, MatrixOrder, RowNorm, RowProduct, RowRotation, check_few_rows};
pub use select::{Choice, Engine};
pub use tensors::{DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs};

/// The device of unit tests, or `None` where there is none and none is asked for.
#[cfg(all(test, feature = "wgpu"))]
fn device_for_tests() -> Option<cubecl::client::Client> {
    let found = std::panic::catch_unwind(|| cubecl::Device::default().client());
    let required = std::env::var_os("S2_REQUIRE_GPU").is_some();
    assert!(found.is_ok() || !required, "no GPU found");
    found.ok()
}
