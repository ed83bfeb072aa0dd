//! The CPU engine on the pages of a cache.

mod golden;
mod harness;
mod long;
mod machine;
mod mutations;
mod needle;
mod panics;
mod poison;
mod random;
mod repeat;
mod state;
