//! Devices as CubeCL's runtimes describe them, without the devices.

use std::sync::Arc;

use cubecl::Compiler;
use cubecl::cmma::MatrixLayout;
use cubecl::ir::amd::{AmdWmma, GfxArch};
use cubecl::ir::features::Plane;
use cubecl::ir::{
    AddressType, ContiguousElements, DeviceIdentity, DeviceProperties, HardwareProperties,
    MemoryDeviceProperties, MmaProperties, TargetProperties, features::Features,
};
use cubecl::prelude::*;
use cubecl_cpp::ComputeKernel;
use cubecl_cpp::cuda::arch::CudaArchitecture;
use cubecl_cpp::cuda::mma::manual::contiguous_elements_cuda;
use cubecl_cpp::cuda::supported_mma_combinations;
use cubecl_cpp::hip;
use cubecl_cpp::hip::mma::manual::{contiguous_elements_rdna3, contiguous_elements_rdna4};
use cubecl_cpp::shared::{
    CompilationOptions, CppCompiler, CppSupportedFeatures, register_mma_features,
    register_supported_types,
};
use cubecl_cpp::target::{Cuda, Hip, Metal};

use super::{BF16, F16};

/// A device and its compiler.
pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) properties: Arc<DeviceProperties>,
    pub(super) target: Arc<TargetProperties>,
    /// What counts the elements of buffers.
    pub(super) address: AddressType,
    /// How the sources are called.
    pub(super) extension: &'static str,
    /// What a kernel is declared with.
    pub(super) entry: &'static str,
    /// What units of a cube wait at.
    pub(super) barrier: &'static str,
    options: CompilationOptions,
    compile: fn(KernelDefinition, &CompilationOptions) -> Result<ComputeKernel, String>,
}

impl Device {
    /// The source of a kernel, or why there is none.
    pub(super) fn lower(&self, kernel: &dyn CubeKernel) -> Result<ComputeKernel, String> {
        (self.compile)(kernel.define(), &self.options)
    }
}

fn compile<C>(
    kernel: KernelDefinition,
    options: &CompilationOptions,
) -> Result<ComputeKernel, String>
where
    C: Compiler<Representation = ComputeKernel, CompilationOptions = CompilationOptions> + Default,
{
    C::default()
        .compile(kernel, options)
        .map_err(|error| error.to_string())
}

fn properties(plane: u32, shared: usize, max_vector: usize) -> DeviceProperties {
    let mut properties = DeviceProperties::new(
        Features::default(),
        MemoryDeviceProperties::new(u64::MAX, 256),
        HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: plane,
            plane_size_max: plane,
            max_bindings: 30,
            max_shared_memory_size: shared,
            max_cube_count: (u32::MAX, u16::MAX as u32, u16::MAX as u32),
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: None,
            num_tensor_cores: None,
            min_tensor_cores_dim: None,
            num_cpu_cores: None,
            last_level_cache_size: None,
            max_vector_size: max_vector,
            cube_mma_reserved_shared_memory: 0,
        },
        cubecl::profile::TimingMethod::Device,
        DeviceIdentity {
            name: "offline".to_owned(),
            fingerprint: "offline".to_owned(),
            physical: None,
        },
    );
    register_supported_types(&mut properties);
    let features = &mut properties.features;
    features.memory_reinterpret = true;
    features.alignment = true;
    features.plane.insert(Plane::Ops);
    features.plane.insert(Plane::NonUniformControlFlow);
    properties
}

/// An NVIDIA GPU of compute capability 9.0.
pub(super) fn cuda() -> Device {
    let mut properties = properties(32, 227 * 1024, VectorSize::MAX);
    let arch = CudaArchitecture {
        version: 90,
        tensor_cores: true,
    };
    register_mma_features(supported_mma_combinations(&arch), &mut properties);
    properties.features.plane.insert(Plane::Sync);
    properties.features.copy_async = true;
    for dtype in [F16, BF16] {
        properties.features.matmul.ldmatrix.insert(dtype);
    }
    Device {
        name: "sm_90",
        properties: Arc::new(properties),
        target: Arc::new(TargetProperties {
            mma: MmaProperties {
                register_size_bits: 32,
                const_plane_size: 32,
                register_layout_a: MatrixLayout::RowMajor,
                register_layout_b: MatrixLayout::ColMajor,
                register_layout_acc: MatrixLayout::RowMajor,
                register_duplication_a: 1,
                register_duplication_b: 1,
                register_duplication_acc: 1,
                contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
            },
        }),
        address: AddressType::U32,
        extension: "cu",
        entry: "extern \"C\" __global__",
        barrier: "__syncthreads()",
        options: CompilationOptions {
            supports_features: CppSupportedFeatures {
                fast_math: true,
                fast_tanh: true,
                dp4a: true,
                grid_constants: true,
                clusters: true,
                elect_sync: true,
            },
            ..Default::default()
        },
        compile: compile::<CppCompiler<Cuda>>,
    }
}

/// The same with buffers of more elements than 32 bits count.
pub(super) fn cuda_long() -> Device {
    Device {
        name: "sm_90-long",
        address: AddressType::U64,
        ..cuda()
    }
}

/// AMD GPUs: RDNA3, RDNA4, and CDNA with its planes of 64 units.
pub(super) fn hip() -> [Device; 3] {
    ["gfx1100", "gfx1200", "gfx942"].map(|name| {
        let arch = GfxArch::parse(name);
        let plane = arch.plane_dim().expect("a known GPU");
        let mut properties = properties(plane, 64 * 1024, VectorSize::MAX);
        register_mma_features(
            hip::supported_mma_combinations(&arch.family()),
            &mut properties,
        );
        let (copies, contiguous) = match arch.wmma() {
            Some(AmdWmma::Rdna4) => (1, ContiguousElements::new(contiguous_elements_rdna4)),
            _ => (2, ContiguousElements::new(contiguous_elements_rdna3)),
        };
        Device {
            name,
            properties: Arc::new(properties),
            target: Arc::new(TargetProperties {
                mma: MmaProperties {
                    register_size_bits: 32,
                    const_plane_size: 32,
                    register_layout_a: MatrixLayout::RowMajor,
                    register_layout_b: MatrixLayout::ColMajor,
                    register_layout_acc: MatrixLayout::ColMajor,
                    register_duplication_a: copies,
                    register_duplication_b: copies,
                    register_duplication_acc: 1,
                    contiguous_elements: contiguous,
                },
            }),
            address: AddressType::U32,
            extension: "hip",
            entry: "extern \"C\" __global__",
            barrier: "__syncthreads()",
            options: CompilationOptions {
                warp_size: plane as usize,
                supports_features: CppSupportedFeatures {
                    fast_math: true,
                    ..Default::default()
                },
                amd_wmma: arch.wmma(),
            },
            compile: compile::<CppCompiler<Hip>>,
        }
    })
}

/// An Apple GPU.
pub(super) fn metal() -> Device {
    let mut properties = properties(32, 32 * 1024, 4);
    properties.features.plane.insert(Plane::Sync);
    Device {
        name: "apple",
        properties: Arc::new(properties),
        target: Arc::default(),
        address: AddressType::U32,
        extension: "metal",
        entry: "[[kernel]]",
        barrier: "threadgroup_barrier(",
        options: CompilationOptions {
            supports_features: CppSupportedFeatures {
                fast_math: true,
                ..Default::default()
            },
            ..Default::default()
        },
        compile: compile::<CppCompiler<Metal>>,
    }
}
