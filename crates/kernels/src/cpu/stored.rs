//! What pages hold, and the type that it is computed in.

use half::{bf16, f16};

use super::Real;

/// An element of a page, of which scores and sums are computed in `F`.
pub trait Stored<F: Real>: Copy + Send + Sync + 'static {
    /// The same number.
    fn widen(self) -> F;
}

macro_rules! impl_stored {
    ($($stored:ident as $real:ident),*) => {
        $(impl Stored<$real> for $stored {
            fn widen(self) -> $real {
                self.into()
            }
        })*
    };
}

impl_stored!(f32 as f32, f64 as f64, f16 as f32, bf16 as f32);
