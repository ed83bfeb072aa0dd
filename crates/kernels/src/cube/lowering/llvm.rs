//! Kernels of tensor cores by LLVM, where its library of functions for CUDA is installed.

use cubecl::Compiler;
use cubecl::cuda::compiler::CudaBackend;
use cubecl::cuda::{CudaCompilationOptions, CudaCompiler, CudaRepresentation};
use cubecl::ir::nvidia::SmArch;
use cubecl::prelude::*;

use super::devices::cuda;
use super::mma::{CLASSES, class_launches};
use super::{BF16, F16, class_name, keep};
use crate::cube::mma::products::Products;

fn ptx(kernel: &dyn CubeKernel) -> String {
    let options = CudaCompilationOptions {
        arch: Some(SmArch::new(90, true)),
        ..Default::default()
    };
    let compiled = CudaCompiler::new(CudaBackend::Llvm)
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

#[test]
fn kernels_of_tensor_cores_lower_by_llvm() {
    let toolkit = cubecl::cuda::install::cuda_path();
    if !toolkit.is_some_and(|path| path.join("nvvm/libdevice/libdevice.10.bc").exists()) {
        eprintln!("left out: no CUDA toolkit with libdevice");
        return;
    }
    let device = cuda();
    for (at, class) in CLASSES.into_iter().enumerate() {
        let dtype = [F16, BF16][at % 2];
        for table in [false, true] {
            for launch in class_launches(class, table, Products::Mma) {
                let name = format!("mma-{}-{}", launch.kernel, class_name(launch.config, dtype));
                let source = ptx(&*(launch.make)(&device, launch.config, dtype));
                keep(&name, "ptx", &source);
                for instruction in ["ldmatrix", "mma.sync"] {
                    assert!(source.contains(instruction), "{name}: no {instruction}");
                }
            }
        }
    }
}
