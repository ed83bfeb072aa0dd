//! Layers with weights and the model, on Burn's CPU backend.

#![cfg(feature = "flex")]

#[path = "common"]
mod common {
    pub mod cast;
    pub mod host;
    pub mod models;
    pub mod panics;
    pub mod parameters;
    pub mod tensors;
}

mod modules {
    mod attention;
    mod attention_config;
    mod column_major;
    mod gradients;
    mod mlp;
    mod model;
    mod model_config;
    mod packed;
    mod phi3_small;
    mod plain_attention;
    mod records;
    mod rope;
}
