//! The weight of a pair, computed again from the saved lse.

use cubecl::prelude::*;

use super::intrinsics::exp2;
use crate::cube::weight::at_most_one;

/// `2^x` with `x` the score less the lse: at most 1 however large the scores are.
#[cube]
pub(in crate::cube) fn weight(x: f32, #[comptime] approximate: bool) -> f32 {
    at_most_one(exp2(x, approximate))
}
