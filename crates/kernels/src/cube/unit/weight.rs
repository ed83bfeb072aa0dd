//! The weight of a pair, computed again from the saved lse.

use cubecl::prelude::*;

use crate::cube::weight::at_most_one;

/// `P = exp(score - lse)`: 0 where the pair does not attend, at most 1 however large the scores are.
#[cube]
pub(super) fn weight(attended: bool, score: f32, lse: f32) -> f32 {
    select(attended, at_most_one((score - lse).exp()), f32::new(0.0))
}

/// `dS = P * (dP - D)`: 0 where the pair does not attend.
#[cube]
pub(super) fn score_gradient(attended: bool, weight: f32, d_weight: f32, d: f32) -> f32 {
    select(attended, weight * (d_weight - d), f32::new(0.0))
}
