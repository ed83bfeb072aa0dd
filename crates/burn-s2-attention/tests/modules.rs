//! Layers with weights and the model, on Burn's CPU backend.

#![cfg(feature = "flex")]

mod modules {
    mod attention;
    mod attention_config;
    mod mlp;
    mod model;
    mod model_config;
    mod packed;
    mod phi3_small;
    mod plain_attention;
    mod records;
    mod rope;
    mod support;
}
