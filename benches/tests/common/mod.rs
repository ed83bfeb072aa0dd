//! Rows to test with.

use std::collections::BTreeMap;

use s2_bench::record::{Backend, Dtype, Engine, Pass, Row};
use s2_bench::summary::{BURN_ATTENTION, BURN_MATMUL, S2_ATTENTION};

/// A row of this library: 2048 tokens, local window 4, stride 8.
pub fn sparse(median_us: f64) -> Row {
    Row {
        run: "run-1".to_owned(),
        provider: S2_ATTENTION.to_owned(),
        engine: Some(Engine::Flex),
        backend: Backend::Flex,
        problem: "b1_h8_s2048_d64_f32_blk64_l4_v8".to_owned(),
        pass: Pass::Forward,
        dtype: Dtype::F32,
        batch: 1,
        heads: 8,
        kv_heads: 8,
        seq_q: 2048,
        seq_kv: 2048,
        head_dim: 64,
        block: Some(64),
        local_blocks: Some(4),
        vert_stride: Some(8),
        causal: true,
        pattern: "local 4, stride 8".to_owned(),
        median_us,
        min_us: 0.9 * median_us,
        runs: 20,
        peak_bytes: Some(1 << 20),
        density: 0.25,
        useful_tflops: 0.1,
        device: "CPU, 2 threads".to_owned(),
        driver: None,
        date: "2026-01-02T03:04:05Z".to_owned(),
        commit: "0123456789ab".to_owned(),
        versions: BTreeMap::from([("burn".to_owned(), "0.22.1".to_owned())]),
    }
}

/// The dense problem of the same shape.
#[allow(dead_code, reason = "not every test compares")]
pub fn dense(provider: &str, median_us: f64) -> Row {
    Row {
        provider: provider.to_owned(),
        engine: (provider != BURN_ATTENTION).then_some(Engine::Flex),
        problem: "b1_h8_s2048_d64_f32_dense".to_owned(),
        block: None,
        local_blocks: None,
        vert_stride: None,
        density: 1.0,
        ..sparse(median_us)
    }
}

/// Burn's matrix product.
#[allow(dead_code, reason = "not every test compares")]
pub fn matmul(useful_tflops: f64) -> Row {
    Row {
        problem: "matmul_4096_f32".to_owned(),
        causal: false,
        useful_tflops,
        ..dense(BURN_MATMUL, 1e5)
    }
}
