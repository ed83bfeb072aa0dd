//! Burn's devices, for what runs through Burn.

use burn::tensor::{DType, Device};

use crate::record::{Backend, Dtype};

/// The device of a backend, if this program was built with it.
///
/// # Errors
/// A backend that is not built in.
pub fn device(backend: Backend) -> anyhow::Result<Device> {
    match backend {
        #[cfg(feature = "flex")]
        Backend::Flex => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        Backend::Cuda | Backend::CudaCpp => Ok(Device::cuda(0)),
        #[cfg(feature = "rocm")]
        Backend::Rocm => Ok(Device::rocm(0)),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        Backend::Metal => Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        other => anyhow::bail!(
            "Burn does not run on {other} in this program: build it with the feature of that name"
        ),
    }
}

pub(super) fn dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
    }
}

/// Waits until the device has done what it was given.
pub(super) fn wait(device: &Device) {
    device
        .sync()
        .unwrap_or_else(|error| panic!("the device failed: {error:?}"));
}
