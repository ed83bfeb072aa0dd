//! The weight of a pair, computed again from the saved lse.

use cubecl::prelude::*;

/// `P = exp(score - lse)`: 0 where the pair does not attend, at most 1 however large the scores are.
#[cube]
pub(super) fn weight(attended: bool, score: f32, lse: f32) -> f32 {
    let weight = (score - lse).exp();
    // Not `min`, which hides what is not a number.
    let weight = select(weight > 1.0f32, f32::new(1.0), weight);
    select(attended, weight, f32::new(0.0))
}

/// `dS = P * (dP - D)`: 0 where the pair does not attend.
#[cube]
pub(super) fn score_gradient(attended: bool, weight: f32, d_weight: f32, d: f32) -> f32 {
    select(attended, weight * (d_weight - d), f32::new(0.0))
}
