//! Every kernel, expanded and lowered by CubeCL's compilers for devices that are not there: what a device alone would show
//! is seen without one.
//!
//! By the feature `lowering`. Kernels for WebGPU and Vulkan are not lowered here: a processor runs those.
//! `S2_DUMP_KERNELS=folder` keeps the sources.

mod decode;
mod devices;
mod few_rows;
mod kernels;
#[cfg(feature = "cuda")]
mod llvm;
mod mma;
mod plan;
mod unit;
mod wgmma;

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl_cpp::ComputeKernel;

use super::config::Config;
use devices::Device;

const F32: ElemType = ElemType::Float(FloatKind::F32);
const F16: ElemType = ElemType::Float(FloatKind::F16);
const BF16: ElemType = ElemType::Float(FloatKind::BF16);

/// Buffers that a kernel may have, beside the one that CubeCL adds for lengths and scalars: WebGPU promises 8.
const BUFFERS: usize = 7;

fn class_name(config: Config, dtype: ElemType) -> String {
    let (tile, dims) = (config.owned, (config.head_dim, config.value_dim));
    let lists = if tile.table { "-table" } else { "" };
    format!(
        "{dtype:?}-{}-{}-{}-{}{lists}",
        dims.0, dims.1, tile.block, tile.rows
    )
}

/// The C++ of a kernel for a device, with what holds for kernels of every engine: it writes the buffers `written`.
fn lowered(
    device: &Device,
    name: &str,
    kernel: &dyn CubeKernel,
    written: &[usize],
) -> ComputeKernel {
    let name = format!("{name}-{}", device.name);
    let lowered = device
        .lower(kernel)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    keep(&name, device.extension, &lowered.source);
    let source = &lowered.source;
    assert!(source.contains(device.entry), "{name}: no kernel");
    // What is meant to be f32 is slow as f64 on most devices and does not exist on others.
    assert!(!source.contains("double"), "{name}: numbers of 8 bytes");
    // Those of Hopper's GPUs run on no others.
    assert!(
        lowered.buffers.len() <= BUFFERS || name.starts_with("wgmma"),
        "{name}: {} buffers",
        lowered.buffers.len()
    );
    let writes = (0..lowered.io.len()).filter(|buffer| lowered.io[*buffer].is_writable());
    assert_eq!(writes.collect::<Vec<_>>(), written, "{name}");
    let accepted = device.properties.hardware.max_shared_memory_size;
    assert!(
        lowered.shared_memory_size <= accepted,
        "{name}: {} bytes of shared memory",
        lowered.shared_memory_size
    );
    lowered
}

fn keep(name: &str, extension: &str, source: &str) {
    if let Some(folder) = std::env::var_os("S2_DUMP_KERNELS") {
        let path = std::path::Path::new(&folder).join(format!("{name}.{extension}"));
        std::fs::write(path, source).expect("a folder");
    }
}
