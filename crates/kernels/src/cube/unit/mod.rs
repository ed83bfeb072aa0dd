//! The unit engine: plain multiply-adds, f32 inside, on any device.
//!
//! A cube owns rows and visits others, a few at a time: queries that visit keys (forward, dQ) or keys that visit queries
//! (dK, dV). An operand is what both sides have rows of: 0 queries and keys, 1 values and gradients of `out`. Where there
//! is shared memory for it, rows are staged whole and once; else slices of them in turn.

pub(super) mod decode;
pub(super) mod dkdv;
pub(super) mod dq;
mod exchange;
pub(super) mod forward;
pub(super) mod launch;
mod mask;
mod products;
mod queries;
mod rows;
mod scratch;
pub(super) mod size;
mod softmax;
mod weight;
