//! Tensors on the device.

use cubecl::ir::ElemType;
use cubecl::server::Handle;

use super::vector_tensor::vector_strides;

/// A tensor on the device.
#[derive(Debug, Clone)]
pub struct DeviceTensor {
    /// Where it is.
    pub handle: Handle,
    /// Its strides in elements: batch, head, token, element. The last is 1.
    pub strides: [usize; 4],
}

/// What the forward pass writes.
#[derive(Debug, Clone)]
pub struct ForwardOutputs {
    /// `[batch, num_heads, seq_q, value_dim]`.
    pub out: DeviceTensor,
    /// What `out` loses by rounding to a 2-byte type, of the same shape and type: the gradients need it to be as exact as
    /// the type allows. `None` where no gradients will be computed, and for f32.
    pub rounding: Option<DeviceTensor>,
    /// f32 `[batch, num_heads, seq_q]`, contiguous.
    pub lse: Handle,
}

/// What the backward pass reads beside `q`, `k` and `v`.
#[derive(Debug, Clone)]
pub struct SavedOutputs {
    /// What the forward pass wrote.
    pub forward: ForwardOutputs,
    /// The gradient of `out`.
    pub d_out: DeviceTensor,
    /// The gradient of `lse`: f32 `[batch, num_heads, seq_q]`, contiguous.
    pub d_lse: Handle,
}

/// The gradients of `k` and `v`, in one buffer.
#[derive(Debug, Clone)]
pub struct KeyGradients {
    /// The buffer.
    pub handle: Handle,
    /// Strides of dK, which begins with the buffer; `None` where it is not wanted.
    pub dk: Option<[usize; 4]>,
    /// The first element of dV, a multiple of 8, and its strides; `None` where it is not wanted.
    pub dv: Option<(usize, [usize; 4])>,
}

impl KeyGradients {
    /// The first vector of dV and its strides, in vectors of `lanes` elements of a type.
    pub(super) fn dv_vectors(&self, of: (usize, ElemType)) -> (usize, [usize; 3]) {
        let (at, strides) = self.dv.unwrap_or((0, [0, 0, 0, 1]));
        (at / of.0, vector_strides(&self.handle, strides, of))
    }

    /// The buffer by the strides of dK.
    pub(super) fn dk_tensor(&self) -> DeviceTensor {
        DeviceTensor {
            handle: self.handle.clone(),
            strides: self.dk.unwrap_or([0, 0, 0, 1]),
        }
    }
}
