//! What a token takes beside attention: products of a few rows with a matrix, and norms of them.
//!
//! A row of a large model's step is multiplied by matrices that are read once and used once: their bytes bound it. Kernels for
//! products of many rows leave most of a GPU idle there.

mod call;
pub(super) mod norm;
pub(super) mod product;

pub use call::{MAX_ROWS, MatrixOrder, RowNorm, RowProduct};
