//! The backend extension trait of what a few rows take beside attention, on GPUs.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::Shape;

/// Products and norms of a few rows, and rotary positions. No gradients.
#[backend_extension(Cube, Fusion)]
pub trait RowOps: Backend {
    /// The product of `x`, `[rows, inputs]`, and `weights`, `[inputs, outputs]`: `[rows, outputs]`.
    ///
    /// Both are f32, f16 or bf16, and of one dtype. `rows` is at most
    /// [`MAX_ROWS`](s2_attention_kernels::cube::MAX_ROWS). Weights that lie neither row by row nor column by column, with or without
    /// padding, are Burn's to multiply.
    ///
    /// # Panics
    /// For other shapes and dtypes. As all operations of Burn's on GPUs this may happen late, where fused operations are carried out.
    #[fusion(dtype = x, shape = Shape::new([x[0], weights[1]]))]
    fn s2_row_product(x: FloatTensor<Self>, weights: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x / sqrt(mean(x^2) + epsilon) * weight` of each row of `x`, `[rows, width]`. `weight` is `[width]`; dtypes as in [`s2_row_product`](Self::s2_row_product).
    ///
    /// # Panics
    /// As [`s2_row_product`](Self::s2_row_product).
    #[fusion(dtype = x, shape = x)]
    fn s2_row_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// Turns the pairs `(i, i + width / 2)` of each row and head of `x`, `[rows, heads, width]`, by the angles of the row's position.
    ///
    /// `positions` is `[rows]`, i32, below `limit`; `cosines` and `sines` are f32 `[limit, width / 2]`. Dtypes of `x` as in
    /// [`s2_row_product`](Self::s2_row_product).
    ///
    /// # Panics
    /// As [`s2_row_product`](Self::s2_row_product), and for an odd `width`.
    #[fusion(dtype = x, shape = x)]
    fn s2_row_rotation(
        x: FloatTensor<Self>,
        cosines: FloatTensor<Self>,
        sines: FloatTensor<Self>,
        positions: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}
