//! GPUs: products and norms of a few rows, and rotary positions.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use s2_attention_kernels::cube::{MatrixOrder, RowNorm, RowProduct, RowRotation};

use super::cubecl::empty;
use super::cubecl_cache::device_rows;
use crate::row_ops::RowOps;

impl RowOps for CubeBackend {
    fn s2_row_product(x: CubeTensor, weights: CubeTensor) -> CubeTensor {
        let Some(order) = order(&weights) else {
            return Self::float_matmul(x, weights);
        };
        let x = into_contiguous(x);
        let [rows, inputs] = [0, 1].map(|axis| x.meta.shape()[axis]);
        let outputs = weights.meta.shape()[1];
        let out = empty(&x, [rows, outputs].into(), x.dtype);
        let product = RowProduct {
            rows,
            inputs,
            outputs,
            order,
        };
        product
            .launch(
                &x.client,
                dtype_to_elem_type(x.dtype),
                &x.handle,
                &weights.handle,
                &out.handle,
            )
            .unwrap_or_else(|error| panic!("{error}"));
        out
    }

    fn s2_row_norm(x: CubeTensor, weight: CubeTensor, epsilon: f64) -> CubeTensor {
        let [x, weight] = [x, weight].map(into_contiguous);
        let [rows, width] = [0, 1].map(|axis| x.meta.shape()[axis]);
        let out = empty(&x, [rows, width].into(), x.dtype);
        let norm = RowNorm {
            rows,
            width,
            epsilon,
        };
        norm.launch(
            &x.client,
            dtype_to_elem_type(x.dtype),
            &x.handle,
            &weight.handle,
            &out.handle,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        out
    }

    fn s2_row_rotation(
        x: CubeTensor,
        cosines: CubeTensor,
        sines: CubeTensor,
        positions: CubeTensor,
    ) -> CubeTensor {
        let x = if x.meta.strides().last() == Some(&1) && !x.meta.is_tiled() {
            x
        } else {
            into_contiguous(x)
        };
        let [rows, heads, width] = [0, 1, 2].map(|axis| x.meta.shape()[axis]);
        let [cosines, sines, positions] = [cosines, sines, positions].map(into_contiguous);
        let out = empty(&x, [rows, heads, width].into(), x.dtype);
        let rotation = RowRotation {
            rows,
            heads,
            width,
            limit: cosines.meta.shape()[0],
        };
        rotation
            .launch(
                &x.client,
                dtype_to_elem_type(x.dtype),
                &device_rows(&x),
                [&cosines.handle, &sines.handle],
                &positions.handle,
                &out.handle,
            )
            .unwrap_or_else(|error| panic!("{error}"));
        out
    }
}

/// How a matrix lies, where all of it lies next to each other.
fn order(matrix: &CubeTensor) -> Option<MatrixOrder> {
    if matrix.meta.is_tiled() {
        return None;
    }
    let (shape, strides) = (matrix.meta.shape(), matrix.meta.strides());
    // Along an axis of one element there is nowhere to go, and strides say anything.
    let is = |expected: [usize; 2]| {
        (0..2).all(|axis| shape[axis] == 1 || strides[axis] == expected[axis])
    };
    if is([shape[1], 1]) {
        Some(MatrixOrder::Rows)
    } else if is([1, shape[0]]) {
        Some(MatrixOrder::Columns)
    } else {
        None
    }
}
