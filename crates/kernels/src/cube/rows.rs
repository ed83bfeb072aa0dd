//! Rows of a tensor on the device.

use cubecl::prelude::*;

use super::walk::{NONE, Span};
use crate::cube::vector_tensor::VectorTensor;

/// The rows of one item and head, in vectors from the start of the tensor.
#[derive(CubeType, Clone, Copy)]
pub(super) struct HeadRows {
    pub(super) base: usize,
    pub(super) stride: usize,
    /// The position that row 0 would have.
    pub(super) start: i32,
}

/// The rows of `tensor` (`[batch, heads, queries, width]`, by its strides) that belong to one sequence and head.
#[cube]
pub(super) fn head_queries<E: Float, N: Size>(
    tensor: &VectorTensor<E, N>,
    span: &Span,
    head: usize,
) -> HeadRows {
    head_rows::<E, N>(tensor, span.item, head, span.q_zero)
}

/// The rows of `tensor` (`[batch, heads, keys, width]`, by its strides) that belong to one sequence and head.
#[cube]
pub(super) fn head_keys<E: Float, N: Size>(
    tensor: &VectorTensor<E, N>,
    span: &Span,
    head: usize,
) -> HeadRows {
    head_rows::<E, N>(tensor, span.item, head, span.kv_zero)
}

/// The rows of `tensor` (`[batch, heads, tokens, width]`, by its strides) that belong to one item and head.
#[cube]
pub(super) fn head_rows<E: Float, N: Size>(
    tensor: &VectorTensor<E, N>,
    item: usize,
    head: usize,
    start: i32,
) -> HeadRows {
    HeadRows {
        base: item * tensor.item + head * tensor.head,
        stride: tensor.token,
        start,
    }
}

#[cube]
impl HeadRows {
    /// Rows as many vectors further.
    pub(super) fn further(&self, vectors: usize) -> HeadRows {
        HeadRows {
            base: self.base + vectors,
            stride: self.stride,
            start: self.start,
        }
    }

    /// The first vector of the row of `token`, which is not [`NONE`].
    pub(super) fn at(&self, token: i32) -> usize {
        self.base + usize::cast_from(token - self.start) * self.stride
    }
}

/// Vector `at` of the row of `token` in f32; zeros for [`NONE`].
#[cube]
pub(super) fn load<E: Float, N: Size>(
    tensor: &VectorTensor<E, N>,
    rows: &HeadRows,
    token: i32,
    at: usize,
) -> Vector<f32, N> {
    let mut value = Vector::<f32, N>::new(0.0f32);
    if token != NONE {
        value = Vector::<f32, N>::cast_from(tensor.vectors[rows.at(token) + at]);
    }
    value
}
