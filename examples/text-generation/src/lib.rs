//! A byte-level language model whose layers mix sparse S2 and dense attention: training with Burn's
//! `Learner`, writing, and reporting. See the README beside this crate.
#![recursion_limit = "256"]

pub mod cli;
pub mod commands;
pub mod config;
pub mod data;
pub mod device;
pub mod evaluate;
pub mod generate;
pub mod model;
pub mod report;
pub mod run_dir;
pub mod training;
