//! The unit engine: plain multiply-adds, f32 inside, on any device.

pub(super) mod dkdv;
pub(super) mod dq;
pub(super) mod forward;
pub(super) mod launch;
mod mask;
mod queries;
pub(super) mod size;
mod tile;
mod weight;
