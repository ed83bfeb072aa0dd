//! The CubeCL engines against the golden data and the host oracle, on whatever device the enabled runtime finds.

#[path = "../support/mod.rs"]
mod support;

mod engine;
mod golden;
mod random;
