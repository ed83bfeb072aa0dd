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

    let refused = 1 + refused_tiles(engine)?;
    if engine.client.properties().memory.max_page_size > BOUND {
        return Ok(refused);
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
    Ok(refused + 1)
}

/// Tiles for narrow heads that wide ones have no memory for, where the device has such.
fn refused_tiles(engine: &Engine) -> Result<usize, String> {
    let config = PatternConfig::dense(16, 1);
    let wide = AttentionShape {
        head_dim: 256,
        value_dim: 256,
        ..SHAPE
    };
    let [narrow, wide] = [SHAPE, wide].map(|shape| problem(shape, &config, None, None));
    let wide = Arc::new(wide?);
    let fitting = engine.candidates(&wide)?;
    let mut refused = 0;
    for choice in engine.candidates(&narrow?)? {
        if fitting.iter().all(|fits| fits.tiles() != choice.tiles()) {
            let dtype = engine.storage.elem();
            let call = CubeAttention::with_tiles(&engine.client, wide.clone(), dtype, &choice);
            hold(call, &[&choice.tiles(), &fitting[0].tiles()])?;
            refused += 1;
        }
    }
    Ok(refused)
}
