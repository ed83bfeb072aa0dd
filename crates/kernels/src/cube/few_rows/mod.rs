//! What a token takes beside attention: products of a few rows with a matrix, norms, and rotary positions.
//!
//! A row of a large model's step is multiplied by matrices that are read once and used once: their bytes bound it. Kernels for
//! products of many rows leave most of a GPU idle there.

mod checks;
pub(super) mod norm;
pub(super) mod product;
pub(super) mod rotation;
mod row_product;

pub use checks::check_few_rows;
pub use norm::RowNorm;
pub use rotation::RowRotation;
pub use row_product::{MAX_ROWS, MatrixOrder, RowProduct};
