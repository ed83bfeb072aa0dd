//! The cache, and what models and generation do with it, on Burn's CPU backend.

#![cfg(feature = "flex")]

mod cache {
    mod attend;
    mod bytes;
    mod errors;
    mod generate;
    mod generation_errors;
    mod model;
    mod sampling;
    #[path = "../modules/support.rs"]
    #[allow(dead_code)]
    mod support;
}
