//! GPUs: products and norms of a few rows, and rotary positions.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use s2_attention_kernels::cube::{MatrixOrder, RowNorm, RowProduct, RowRotation, check_few_rows};

use super::cubecl::{empty, readable};
use super::cubecl_cache::device_rows;
use crate::row_ops::RowOps;

/// Whether the kernels run on a device in a type.
pub(crate) fn runs(device: &CubeDevice, dtype: DType) -> bool {
    dtype.is_float() && check_few_rows(&device.client(), dtype_to_elem_type(dtype)).is_ok()
}

impl RowOps for CubeBackend {
    fn s2_row_product(x: CubeTensor, weights: CubeTensor) -> CubeTensor {
        let [rows, inputs] = sizes(&x, "x");
        let [seen, outputs] = sizes(&weights, "weights");
        assert_eq!(seen, inputs, "the first axis of weights is the last of x");
        assert_eq!(weights.dtype, x.dtype, "the dtypes of weights and x");
        let Some((order, pitch)) = order(&weights) else {
            return Self::float_matmul(x, weights);
        };
        let x = into_contiguous(x);
        let out = empty(&x, [rows, outputs].into(), x.dtype);
        let product = RowProduct {
            rows,
            inputs,
            outputs,
            order,
            pitch,
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
        let [rows, width] = sizes(&x, "x");
        assert_eq!(sizes(&weight, "weight"), [width], "the last axis of x");
        assert_eq!(weight.dtype, x.dtype, "the dtypes of weight and x");
        let [x, weight] = [x, weight].map(into_contiguous);
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
        let x = readable(x);
        let [rows, heads, width] = sizes(&x, "x");
        let table: [usize; 2] = sizes(&cosines, "cosines");
        assert_eq!(
            table[1] * 2,
            width,
            "the last axis of x is twice that of a table"
        );
        assert_eq!(sizes(&sines, "sines"), table, "the sizes of both tables");
        assert_eq!(
            sizes(&positions, "positions"),
            [rows],
            "the first axis of x"
        );
        let dtypes = [cosines.dtype, sines.dtype, positions.dtype];
        assert_eq!(
            dtypes,
            [DType::F32, DType::F32, DType::I32],
            "tables and positions"
        );
        let [cosines, sines, positions] = [cosines, sines, positions].map(into_contiguous);
        let out = empty(&x, [rows, heads, width].into(), x.dtype);
        let rotation = RowRotation {
            rows,
            heads,
            width,
            limit: table[0],
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

/// The sizes of a tensor.
fn sizes<const D: usize>(tensor: &CubeTensor, name: &str) -> [usize; D] {
    let shape = tensor.meta.shape();
    assert_eq!(shape.num_dims(), D, "the axes of {name}");
    std::array::from_fn(|axis| shape[axis])
}

/// How a matrix lies, and how far apart its rows or columns begin, where one of its axes lies next to each other.
fn order(matrix: &CubeTensor) -> Option<(MatrixOrder, usize)> {
    if matrix.meta.is_tiled() {
        return None;
    }
    let [rows, columns] = sizes(matrix, "weights");
    // Along an axis of one element there is nowhere to go, and strides say anything.
    let stride = |axis: usize, otherwise: usize| match matrix.meta.shape()[axis] {
        1 => otherwise,
        _ => matrix.meta.strides()[axis],
    };
    let (down, across) = (stride(0, columns), stride(1, 1));
    if across == 1 && down >= columns {
        return Some((MatrixOrder::Rows, down));
    }
    let (down, across) = (stride(0, 1), stride(1, rows));
    (down == 1 && across >= rows).then_some((MatrixOrder::Columns, across))
}
