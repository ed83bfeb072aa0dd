//! Calls with more rows than kernels count, and patterns that take more memory than the device binds.

use std::sync::Arc;

use s2_attention_kernels::AttentionShape;
use s2_attention_kernels::cube::CubeAttention;
use s2_attention_pattern::{BlockMask, PatternConfig, Rule};

use super::edges::problem;
use super::engine::Engine;
use super::errors::hold;
use super::storage::Storage;

const SHAPE: AttentionShape = AttentionShape {
    batch: 1,
    num_heads: 1,
    num_kv_heads: 1,
    seq_q: 1,
    seq_kv: 1,
    head_dim: 16,
    value_dim: 16,
};

/// Key blocks of a mask whose lists alone take [`BOUND`] bytes.
const BLOCKS: usize = 6000;
/// What WebGPU binds at least.
const BOUND: u64 = 128 << 20;

/// How many were refused.
pub fn refused(engine: &Engine) -> Result<usize, String> {
    let dtype = Storage::F32.elem();
    let new = |shape: AttentionShape, config: &PatternConfig| {
        let problem = problem(shape, config, None, None)?;
        Ok::<_, String>(CubeAttention::new(&engine.client, Arc::new(problem), dtype))
    };
    let rows = AttentionShape {
        batch: 1 << 12,
        num_heads: 1 << 4,
        num_kv_heads: 1,
        seq_q: 1 << 15,
        seq_kv: 1 << 15,
        ..SHAPE
    };
    let config = PatternConfig::dense(16, rows.num_heads).with_num_kv_heads(1);
    let parts = ["2147483648 rows", "up to 2147483647", "split the batch"];
    hold(new(rows, &config)?, &parts)?;

    if engine.client.properties().memory.max_page_size > BOUND {
        return Ok(1);
    }
    let mask = BlockMask::from_fn([1, BLOCKS, BLOCKS], false, |_, _, _| true);
    let rule = Rule::Custom(mask.map_err(|error| error.to_string())?);
    let table = AttentionShape {
        seq_q: BLOCKS * 64,
        seq_kv: BLOCKS * 64,
        ..SHAPE
    };
    let parts = ["more than", engine.client.name(), "use larger blocks"];
    hold(new(table, &PatternConfig::new(rule, 64, 1))?, &parts)?;
    Ok(2)
}
