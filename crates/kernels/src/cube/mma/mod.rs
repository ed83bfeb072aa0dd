//! The engine of tensor cores: 2-byte types, f32 sums, [`products`] by planes of 32 units.
//!
//! A cube owns 16 or 32 rows a plane and visits 64 or 32 rows at a time: queries that visit keys (forward, dQ) or keys that
//! visit queries (dK, dV). Visited rows have two slots in shared memory: the next ones are on their way, by asynchronous
//! copies or in registers, while those of this visit are worked on, and there is one barrier a visit.

pub(super) mod decode;
pub(super) mod dkdv;
pub(super) mod dq;
pub(super) mod forward;
pub(super) mod fragments;
pub(super) mod intrinsics;
pub(super) mod keys;
pub(super) mod launch;
pub(super) mod mask;
#[cfg(all(test, feature = "wgpu"))]
mod mask_tests;
mod operands;
pub(super) mod products;
pub(super) mod queries;
pub(super) mod size;
pub(super) mod softmax;
pub(super) mod stage;
pub(super) mod visit;
pub(super) mod weight;
mod wmma;

pub(super) use stage::LANES;
