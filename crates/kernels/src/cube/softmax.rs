//! What the online softmax of every engine has in common.

/// Where a row's maximum starts.
pub(super) const LOWEST: f32 = f32::MIN;
/// How far, in powers of 2, a maximum may be behind on tensor cores.
pub(super) const LAZY: f32 = 8.0;
/// What a unit's weights of a row may sum to, in one visit, before the row's maximum is looked up: 16 weights, none of which is
/// further ahead than [`LAZY`]. Above it one is, so that looking raises the maximum. f16 holds each of them.
pub(super) const HEAVY: f32 = 4096.0;
/// A scale of 0, where `-inf` is still what does not attend: no score below 1e28 sees the difference.
pub(super) const LEAST_SCALE: f32 = 1e-30;
