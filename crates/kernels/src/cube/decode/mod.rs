//! Decode: a few new tokens of each sequence against the pages of a cache.
//!
//! A cube takes some rows of queries of a key/value head, of all query heads that share it, and a part of the head's pages; it
//! leaves what it sums in a record of its own ([`partials`]). A second kernel combines the records of a row in the order of the
//! parts ([`mod@combine`]), so that one sequence fills a device and two launches give the same bits. Which engine multiplies is
//! told by [`select`](super::select); lengths and pages are read from the step's table on the device alone ([`table`]).

mod call;
pub(super) mod combine;
mod launch;
pub(super) mod pages;
pub(super) mod partials;
pub(super) mod plan;
pub(super) mod prepare;
pub(super) mod sizes;
pub(super) mod table;
pub(super) mod tile;

pub use call::CubeDecode;
pub use plan::DecodeChoice;
