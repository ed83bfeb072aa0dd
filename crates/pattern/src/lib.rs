//! Block-sparse attention patterns.
#![warn(missing_docs)]

mod bands;
mod block_mask;
mod blocks;
mod closed_form;
mod compose;
mod config;
mod display;
mod error;
mod heads;
mod layers;
mod pattern;
pub mod predicate;
mod presets;
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
pub use rule::Rule;
pub use schedule::HeadSchedule;
pub use table::BlockTable;
