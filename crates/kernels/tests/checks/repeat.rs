//! Launches repeat bit for bit.

use rand::SeedableRng;
use rand::rngs::StdRng;
use s2_attention_kernels::{AttentionProblem, AttentionShape};
use s2_attention_pattern::PatternConfig;

use super::engine::{Call, Engine};
use super::layouts::same;
use super::storage::Storage;
use super::support::{compare, random};
use super::{Effort, in_types};

const FILES: [&str; 5] = [
    "mha_basic",
    "gqa_per_kv_head",
    "ranges_gqa",
    "custom_empty_rows",
    "block64_d128",
];

/// In every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    for stem in FILES {
        let golden = effort.golden_named(stem)?;
        let call = engine.call(&golden.problem(), &golden.tensors)?;
        repeats(&call, effort.repeats).map_err(|miss| format!("{stem}, {miss}"))?;
    }
    // Enough tiles for every processor of a device, or nearly; a CPU is full with a few.
    let (batch, num_kv_heads) = if effort.all_kernels { (2, 8) } else { (1, 4) };
    let shape = AttentionShape {
        batch,
        num_heads: 2 * num_kv_heads,
        num_kv_heads,
        seq_q: 500,
        seq_kv: 500,
        head_dim: 64,
        value_dim: 64,
    };
    let pattern =
        PatternConfig::local_stride(2, 4, 16, shape.num_heads).with_num_kv_heads(num_kv_heads);
    let pattern = pattern.build().map_err(|error| error.to_string())?;
    let problem = AttentionProblem::new(shape, &pattern, None, None);
    let problem = problem.map_err(|error| error.to_string())?;
    let tensors = random::tensors(&shape, random::STD, true, &mut StdRng::seed_from_u64(4));
    let launches = effort.repeats.div_ceil(10).max(2);
    repeats(&engine.call(&problem, &tensors)?, launches)
        .map_err(|miss| format!("{shape:?}, {miss}"))?;
    Ok(format!(
        "{} launches of {} calls, and {launches} of one of {} heads of 500 tokens, forward and backward, bit for bit",
        effort.repeats,
        FILES.len(),
        batch * shape.num_heads
    ))
}

fn repeats(call: &Call, launches: usize) -> Result<(), String> {
    let first = call.run()?;
    for launch in 1..launches {
        same(compare::difference(&call.run()?, &first))
            .map_err(|miss| format!("launch {launch}: {miss}"))?;
    }
    Ok(())
}
