//! The weight of a pair, computed again from the saved lse.

use cubecl::prelude::*;

use super::intrinsics::exp2;

/// `2^x` with `x` the score less the lse: at most 1 however large the scores are.
#[cube]
pub(super) fn weight(x: f32, #[comptime] approximate: bool) -> f32 {
    let weight = exp2(x, approximate);
    // Not `min`, which hides what is not a number.
    select(weight > 1.0f32, f32::new(1.0), weight)
}
