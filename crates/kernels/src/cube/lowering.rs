//! Every kernel, expanded and lowered for CUDA without a device: what only expands on a GPU is seen here.
//!
//! `S2_DUMP_KERNELS=folder` keeps the sources.

use std::sync::Arc;

use cubecl::__private::Runtime;
use cubecl::Compiler;
use cubecl::cuda::compiler::CudaBackend;
use cubecl::cuda::{CudaCompilationOptions, CudaCompiler, CudaRepresentation, CudaRuntime};
use cubecl::ir::nvidia::SmArch;
use cubecl::ir::{
    AddressType, DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MemoryDeviceProperties, features::Features,
};
use cubecl::prelude::*;

use super::config::Config;
use super::mma;
use super::mma::size::{BOTH_SUMS, units, visited};
use super::tile::Tile;

const F16: ElemType = ElemType::Float(FloatKind::F16);
const BF16: ElemType = ElemType::Float(FloatKind::BF16);

fn properties() -> Arc<DeviceProperties> {
    Arc::new(DeviceProperties::new(
        Features::default(),
        MemoryDeviceProperties::new(u64::MAX, 256),
        HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: 32,
            plane_size_max: 32,
            max_bindings: 32,
            max_shared_memory_size: 227 * 1024,
            max_cube_count: (u32::MAX, u16::MAX as u32, u16::MAX as u32),
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: None,
            num_tensor_cores: None,
            min_tensor_cores_dim: None,
            num_cpu_cores: None,
            last_level_cache_size: None,
            max_vector_size: 16,
            cube_mma_reserved_shared_memory: 0,
        },
        cubecl::profile::TimingMethod::Device,
        DeviceIdentity {
            name: "offline".to_owned(),
            fingerprint: "offline".to_owned(),
            physical: None,
        },
    ))
}

fn tensor() -> TensorCompilationArg {
    TensorCompilationArg {
        meta: TensorMetaCompilationArg { len: (), rank: () },
        buffer: buffer(),
    }
}

fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

fn settings(units: usize) -> KernelSettings {
    KernelSettings::new(
        *CubeDim::new_1d(units as u32),
        ExecutionMode::Unchecked,
        AddressType::U32,
    )
}

/// The source that a compiler makes of a kernel: C++ or PTX.
fn lowered(kernel: &dyn CubeKernel, backend: CudaBackend) -> String {
    let options = CudaCompilationOptions {
        arch: Some(SmArch::new(90, true)),
        ..Default::default()
    };
    let compiled = CudaCompiler::new(backend)
        .compile(kernel.define(), &options)
        .unwrap_or_else(|error| panic!("{error}"));
    match compiled {
        CudaRepresentation::Cpp(kernel) => kernel.source,
        CudaRepresentation::Llvm(module) => {
            let bytes = module.ptx.iter().map(|byte| *byte as u8);
            String::from_utf8_lossy(&bytes.take_while(|byte| *byte != 0).collect::<Vec<_>>())
                .into_owned()
        }
    }
}

/// Lowers a kernel by CubeCL's C++ compiler and, where its library of functions is installed, by LLVM.
fn check(name: &str, kernel: &dyn Fn(bool) -> Box<dyn CubeKernel>) {
    let mut sources = vec![("cu", lowered(&*kernel(true), CudaBackend::Cpp))];
    let toolkit = cubecl::cuda::install::cuda_path();
    if toolkit.is_some_and(|path| path.join("nvvm/libdevice/libdevice.10.bc").exists()) {
        sources.push(("ptx", lowered(&*kernel(false), CudaBackend::Llvm)));
    }
    for (extension, source) in sources {
        if let Some(folder) = std::env::var_os("S2_DUMP_KERNELS") {
            let path = std::path::Path::new(&folder).join(format!("{name}.{extension}"));
            std::fs::write(path, &source).expect("a folder");
        }
        for instruction in ["ldmatrix", "mma.sync"] {
            assert!(
                source.contains(instruction),
                "{name}.{extension}: no {instruction}"
            );
        }
    }
}

fn forward(config: Config, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(mma::forward::forward::Forward::new(
        settings(units(config.owned.rows)),
        properties(),
        Arc::new(CudaRuntime::target_properties()),
        tensor(),
        tensor(),
        tensor(),
        tensor(),
        tensor(),
        buffer(),
        buffer(),
        (),
        (),
        (),
        (),
        (),
        (),
        mma::LANES,
        config,
        dtype,
    ))
}

fn dq(config: Config, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(mma::dq::dq::Dq::new(
        settings(units(config.owned.rows)),
        properties(),
        Arc::new(CudaRuntime::target_properties()),
        tensor(),
        tensor(),
        tensor(),
        tensor(),
        buffer(),
        tensor(),
        buffer(),
        (),
        (),
        (),
        (),
        (),
        mma::LANES,
        config,
        dtype,
    ))
}

fn dkdv(config: Config, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(mma::dkdv::dkdv::Dkdv::new(
        settings(units(config.owned.rows)),
        properties(),
        Arc::new(CudaRuntime::target_properties()),
        tensor(),
        tensor(),
        tensor(),
        tensor(),
        buffer(),
        tensor(),
        buffer(),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        mma::LANES,
        config,
        dtype,
    ))
}

/// Head dim, block, owned rows and type: whole blocks, several and parts of them to a tile, padding, two launches.
const CLASSES: [(usize, usize, usize, ElemType); 6] = [
    (128, 64, 128, BF16),
    (128, 64, 64, BF16),
    (64, 16, 64, F16),
    (64, 128, 64, BF16),
    (40, 48, 64, F16),
    (256, 64, 128, BF16),
];

#[test]
fn kernels_of_tensor_cores_lower() {
    for (dim, block, owned, dtype) in CLASSES {
        for table in [false, true] {
            let config = |sums, approximate_exp2| {
                let tile = Tile {
                    rows: owned,
                    block,
                    table,
                };
                Config {
                    owned: tile,
                    visited: Tile {
                        rows: visited(dim, sums),
                        ..tile
                    },
                    head_dim: dim,
                    value_dim: dim,
                    rounding: table,
                    keys: true,
                    values: sums == 2,
                    approximate_exp2,
                }
            };
            let name = |kernel| {
                let lists = if table { "-table" } else { "" };
                format!("{kernel}-{dim}-{block}-{owned}{lists}")
            };
            let sums = if dim > BOTH_SUMS { 1 } else { 2 };
            check(&name("forward"), &|fast| forward(config(1, fast), dtype));
            check(&name("dq"), &|fast| dq(config(1, fast), dtype));
            check(&name("dkdv"), &|fast| dkdv(config(sums, fast), dtype));
        }
    }
}
