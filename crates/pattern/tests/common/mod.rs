//! Shared by the tests; each uses a part.
#![allow(dead_code)]

pub mod golden;
pub mod random;
