//! What is timed.

mod attention;
mod matmul;

pub use attention::{Attention, Skipped};
pub use matmul::Matmul;

use burn::tensor::{DType, Device};

use crate::record::{Backend, Dtype};

/// The device of a backend, if this program was built with it.
///
/// # Errors
/// A backend that is not built in, or that has no kernels yet.
pub fn device(backend: Backend) -> anyhow::Result<Device> {
    match backend {
        #[cfg(feature = "flex")]
        Backend::Flex => Ok(Device::flex()),
        other => anyhow::bail!(
            "no provider runs on {other}: flex is accepted, where the feature of that name is on"
        ),
    }
}

fn dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
    }
}

/// Waits until the device has done what it was given.
fn wait(device: &Device) {
    device
        .sync()
        .unwrap_or_else(|error| panic!("the device failed: {error:?}"));
}
