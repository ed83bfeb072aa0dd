//! Block-sparse attention patterns: which key blocks every query block of every head attends.
//!
//! The pattern of S2-Attention ([arXiv 2407.17678](https://arxiv.org/abs/2407.17678)) gives each
//! head a local window and its own share of the columns before it, so that the heads together read
//! the whole context at a fraction of the work. Four heads, local window 2 (`#`), vertical stride 4
//! (`o`); rows are query blocks, columns key blocks:
//!
//! ```text
//! head 0       head 1       head 2       head 3
//! #            #            #            #
//! ##           ##           ##           ##
//! o##          .##          .##          .##
//! o.##         ..##         ..##         .o##
//! o..##        ...##        ..o##        .o.##
//! o...##       ...o##       ..o.##       .o..##
//! o...o##      ...o.##      ..o..##      .o...##
//! o...o.##     ...o..##     ..o...##     .o...o##
//! o...o..##    ...o...##    ..o...o##    .o...o.##
//! o...o...##   ...o...o##   ..o...o.##   .o...o..##
//! ```
//!
//! Patterns of other kinds come in the same form: strides per range of distances, bidirectional
//! windows and strides, sliding windows with or without sink blocks, any of these per head, any
//! boolean mask, and their unions and intersections. See [`Rule`] for the formulas.
//!
//! # Example
//!
//! ```
//! use s2_attention_pattern::{PatternConfig, PatternReport};
//!
//! // A local window of 16 blocks, every 8th block before it; 64 tokens a block, 32 query heads.
//! let config = PatternConfig::local_stride(16, 8, 64, 32).with_num_kv_heads(8);
//! let pattern = config.with_head_offset(1).build()?;
//!
//! let head = pattern.head(3);
//! let row = head.row(100, 0..128); // the key blocks of query block 100
//! assert_eq!(row.count(), 27);
//! assert_eq!(row.iter().take(3).collect::<Vec<_>>(), [4, 12, 20]);
//! assert_eq!(head.column(4, 0..128).count(), 124); // the query blocks that attend key block 4
//!
//! // Some query head of KV head 0 always needs block 7; none needs block 8 from query block 24 on.
//! assert_eq!(pattern.released_at(0, 7), None);
//! assert_eq!(pattern.released_at(0, 8), Some(24));
//!
//! // Density, balance, KV tokens kept, coverage.
//! println!("{}", PatternReport::new(&pattern, 8192)?);
//! # Ok::<(), s2_attention_pattern::PatternError>(())
//! ```
//!
//! # How it works
//!
//! - A [`PatternConfig`] is plain data (serde); [`PatternConfig::build`] validates it and compiles
//!   it to a [`Pattern`]. [`Preset`] names published patterns, and [`LayerSchedule`] gives each
//!   layer of a model its own.
//! - Each head has a [`HeadSchedule`]. Named rules compile to a few [`Band`]s, so that a row or a
//!   column is a few arithmetic pieces whatever the length, and the pattern of 64 heads is a few
//!   kilobytes for a million tokens. Custom masks, and compositions whose pieces interleave, become
//!   index lists ([`BlockTable`], CSR and CSC).
//! - [`Pattern::released_at`] and [`Pattern::retained`] say which key blocks a cache can free.
//! - [`predicate::attends`] reads the written rule literally and shares no code with the closed
//!   forms: tests and reference computations use it.
//!
//! Block indices are absolute positions divided by the block size: a query block that comes after a
//! cached past counts from the start of the sequence. Blocks decide which *blocks* are read; where
//! a head is causal, keys after the query within the diagonal block are for the reader to mask.
//!
//! # Features
//!
//! - `render`: pictures of patterns as terminal text and SVG (module `render`).
//! - `render-png`: pictures as PNG too, with an embedded font.

#![warn(missing_docs)]

mod bands;
mod block_mask;
mod blocks;
mod closed_form;
mod compose;
mod config;
mod coverage;
mod display;
mod error;
mod heads;
mod layers;
mod pattern;
pub mod predicate;
mod presets;
#[cfg(feature = "render")]
pub mod render;
mod report;
mod retention;
mod rule;
mod schedule;
mod table;

pub use bands::{Anchor, Band};
pub use block_mask::BlockMask;
pub use blocks::{BlockIter, Blocks, Piece};
pub use config::{MAX_BLOCKS, MAX_HEADS, PatternConfig};
pub use error::PatternError;
pub use heads::HeadMap;
pub use layers::{DenseLayers, LayerSchedule};
pub use pattern::Pattern;
pub use presets::Preset;
pub use report::{Balance, HeadReport, KvHeadReport, PatternReport};
pub use rule::Rule;
pub use schedule::HeadSchedule;
pub use table::BlockTable;
