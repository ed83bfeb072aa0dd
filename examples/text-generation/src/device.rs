//! The device by name, and its float type.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, FloatDType};

use crate::config::Dtype;

/// A device as written on the command line: a backend and, for GPUs, an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    backend: String,
    index: usize,
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (backend, index) = text.split_once(':').unwrap_or((text, "0"));
        let index = index
            .parse()
            .map_err(|_| format!("`{index}` is no device index: write e.g. `cuda:1`"))?;
        let backend = backend.to_lowercase();
        if !["flex", "wgpu", "vulkan", "metal", "cuda", "rocm"].contains(&backend.as_str()) {
            return Err("one of flex, wgpu, vulkan, metal, cuda, rocm is accepted, with `:index` for a further GPU".into());
        }
        if backend == "flex" && index != 0 {
            return Err(format!("`{text}`: there is one CPU, `flex`"));
        }
        Ok(Self { backend, index })
    }
}

/// The named device, or Burn's default, with `dtype` as its float type.
///
/// To be called before the first tensor: a device takes its float type once.
///
/// # Errors
///
/// Where this binary is built without the backend, or the device lacks the type.
pub fn open(name: Option<&DeviceName>, dtype: Dtype) -> Result<Device> {
    let mut device = match name {
        Some(name) => named(name)?,
        None => Device::default(),
    };
    let float = FloatDType::from(dtype);
    device.configure(float).with_context(|| {
        format!("{device:?} cannot compute in {float:?}: choose another --dtype")
    })?;
    Ok(device)
}

impl From<Dtype> for FloatDType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

fn named(name: &DeviceName) -> Result<Device> {
    match name.backend.as_str() {
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(name.index)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(name.index)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(adapter(name.index))),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(adapter(name.index))),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(adapter(name.index))),
        backend => bail!(
            "this binary is built without {backend}: build it with `cargo run --release -p text-generation --features {backend}`"
        ),
    }
}

/// The best adapter first, then discrete GPUs by number.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn adapter(index: usize) -> burn::tensor::DeviceKind {
    use burn::tensor::DeviceKind;
    match index {
        0 => DeviceKind::DefaultDevice,
        index => DeviceKind::DiscreteGpu(index),
    }
}
