//! Weights of pairs, computed again from the saved lse.

use cubecl::prelude::*;

/// A weight is at most 1 however large the scores are. Not by `min`, which hides what is not a number.
#[cube]
pub(super) fn at_most_one(weight: f32) -> f32 {
    select(weight > 1.0f32, f32::new(1.0), weight)
}
