//! The engine of Hopper's GPUs: products of four planes, by `wgmma`.
//!
//! A cube has a group of units that fills a ring of slots in shared memory with the rows that the cube visits, by asynchronous
//! copies, and one to three groups that own 64 rows each and work on the slots: queries that visit keys (forward, dQ) or keys
//! that visit queries (dK, dV). There is no barrier of the whole cube: each group waits for the slots it needs.
//!
//! Cubes of the forward pass stay, one a processor, and take tile after tile: the next one's queries are on their way while results
//! of this one are written.

pub(super) mod dkdv;
pub(super) mod dq;
pub(super) mod dq_kept;
pub(super) mod forward;
mod groups;
#[cfg(all(test, feature = "wgpu"))]
mod groups_tests;
mod instructions;
mod kept;
#[cfg(all(test, feature = "wgpu"))]
mod kept_tests;
mod keys;
mod own;
#[cfg(all(test, feature = "wgpu"))]
mod own_keys_for_tests;
pub(super) mod partial_sums;
mod products;
mod queries;
mod ring;
pub(super) mod size;
mod softmax;
pub(super) mod split;
#[cfg(all(test, feature = "wgpu"))]
mod split_tests;
mod tiles;
mod visited_rows;
mod visits;
mod weights;
mod work;
