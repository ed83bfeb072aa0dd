//! Tensors as kernels read and write them.
//!
//! CubeCL's own [`Tensor`] brings shapes that no kernel here reads, has strides in a buffer of their own, which each launch sends and
//! kernels wait for, and asks for the bytes of a vector among the types that are known to a launch, for each argument of each launch.
//! Strides that are scalars, and bytes that the caller says, are less for the host to do and there when a kernel begins.

use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::tensors::DeviceTensor;

/// `[items, heads, tokens, width]` in vectors of `N` elements of the type `E`, by its strides.
#[derive(CubeType)]
pub(super) struct VectorTensor<E: Scalar, N: Size> {
    pub(super) vectors: Box<[Vector<E, N>]>,
    /// Vectors from one item to the next.
    pub(super) item: usize,
    /// Vectors from one head to the next.
    pub(super) head: usize,
    /// Vectors from one token to the next.
    pub(super) token: usize,
}

/// A tensor for a launch.
pub(super) struct VectorTensorArg {
    buffer: BufferArg,
    /// Bytes of a vector.
    bytes: usize,
    strides: [usize; 3],
}

/// A tensor, which is checked before any launch, in vectors of `lanes` elements of a type.
pub(super) fn tensor_arg(
    tensor: &DeviceTensor,
    (lanes, dtype): (usize, ElemType),
) -> VectorTensorArg {
    let handle = tensor.handle.clone();
    VectorTensorArg {
        bytes: lanes * dtype.size(),
        strides: vector_strides(&handle, tensor.strides, (lanes, dtype)),
        buffer: unsafe {
            BufferArg::from_raw_parts(handle, elements(&tensor.handle, dtype) / lanes)
        },
    }
}

/// Strides of a tensor of this buffer in vectors: those that go beyond it, as they may where an axis has one element, end with it, so
/// that addresses count them.
pub(super) fn vector_strides(
    handle: &Handle,
    [item, head, token, _]: [usize; 4],
    (lanes, dtype): (usize, ElemType),
) -> [usize; 3] {
    let len = elements(handle, dtype);
    [item, head, token].map(|stride| stride.min(len) / lanes)
}

/// Elements of a buffer.
fn elements(handle: &Handle, dtype: ElemType) -> usize {
    handle.size_in_used() as usize / dtype.size()
}

impl<E: Scalar, N: Size> LaunchArg for VectorTensor<E, N> {
    type RuntimeArg = VectorTensorArg;
    type CompilationArg = BufferCompilationArg;

    fn register(arg: VectorTensorArg, launcher: &mut KernelLauncher) -> BufferCompilationArg {
        launcher.register_buffer(arg.buffer, arg.bytes);
        for stride in arg.strides {
            <usize as LaunchArg>::register(stride, launcher);
        }
        BufferCompilationArg { inplace: None }
    }

    fn expand(arg: &BufferCompilationArg, builder: &mut KernelBuilder) -> VectorTensorExpand<E, N> {
        VectorTensorExpand {
            vectors: <Box<[Vector<E, N>]> as LaunchArg>::expand(arg, builder),
            item: <usize as LaunchArg>::expand(&(), builder),
            head: <usize as LaunchArg>::expand(&(), builder),
            token: <usize as LaunchArg>::expand(&(), builder),
        }
    }
}
