//! The CPU engine: fused, multi-threaded attention over kept blocks only, forward and backward.
//!
//! A *query tile* is up to `TILE_QUERIES` neighbouring queries of one head (several pattern blocks where blocks
//! are small). It walks the union of its rows' key blocks in chunks of up to `CHUNK_KEYS` keys. Scores are kept
//! *key-major*: row = key, lane = query. A SIMD vector then holds one score of several queries, so the online
//! softmax needs no horizontal step, and every product of both passes is a plain `A B` or `A^T B` for `gemm`.
//!
//! | file | what it holds |
//! |---|---|
//! | `tensors` | strided views of the inputs and outputs |
//! | `tile` | query tiles and the runs of keys that they attend |
//! | `chunk` | runs cut into chunks and segments, masks on the edges |
//! | `real` | f32 and f64: matrix product and `exp2` |
//! | `softmax` | the vectorised passes over a chunk of scores |
//! | `forward`, `backward` | the two passes |
//! | `decode` | a few new tokens a sequence, over the pages of a cache |
//! | `pages` | the keys of listed pages, chunk by chunk |
//! | `cache` | rows to pages and back |
//! | `table` | the words of a step's table |
//! | `stored` | the types of pages |
//!
//! Memory beyond inputs and outputs is O(S) in both passes. Results do not
//! depend on the number of threads: two runs give the same bits.

mod backward;
mod cache;
mod chunk;
mod decode;
mod forward;
mod pages;
mod real;
mod softmax;
mod stored;
mod table;
mod tensors;
mod tile;

pub use backward::{Gradients, Saved, backward};
pub use cache::{cache_copy, cache_read, cache_write};
pub use decode::decode;
pub use forward::forward;
pub use real::Real;
pub use stored::Stored;
pub use tensors::{Rows, RowsMut};

/// Lanes of a score row: the most queries in a tile.
const TILE_QUERIES: usize = 64;
/// The most keys in a chunk: f32 scores of 48 KiB, beside their operands in the second-level cache.
const CHUNK_KEYS: usize = 192;
