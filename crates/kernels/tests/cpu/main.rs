//! The CPU engine against the golden data and the host oracle.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod determinism;
mod edges;
mod engine;
mod extremes;
mod golden;
mod large;
mod mutations;
mod needle;
mod packed;
mod poison;
mod random;
