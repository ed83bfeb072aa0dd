//! The operation on Burn tensors, on Burn's CPU backend.

#![cfg(feature = "flex")]

#[path = "../../kernels/tests/support/mod.rs"]
mod support;

mod attention {
    mod combine;
    mod combine_errors;
    mod dense;
    mod errors;
    mod finite_differences;
    mod golden;
    mod gradients;
    mod half;
    mod layouts;
    mod poison;
    mod random;
    mod run;
}
