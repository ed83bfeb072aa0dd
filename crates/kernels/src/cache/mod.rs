//! The cache of keys and values that decoding reads: pages of one block, kept as long as a later query needs them.

mod layout;

pub use layout::{ENTRY_WORDS, ITEM_WORDS, TableLayout};
