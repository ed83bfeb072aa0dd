//! What a call does not attend is never read: NaN there changes nothing. A NaN that is attended shows.

use s2_attention_kernels::{AttentionProblem, AttentionShape, SequenceSpan};
use s2_attention_pattern::{PatternConfig, Rule};

use super::edges::call;
use super::engine::Engine;
use super::layouts::same;
use super::storage::{Layout, Storage};
use super::support::random::{CLASSES, Case, case_of};
use super::support::{Tensors, compare, poison::poison};
use super::{Effort, ensure, in_types};

/// The first classes are enough: what is read does not depend on the widths.
const RANDOM_CLASSES: usize = 5;

/// Keys that nobody attends, keys beyond the last, and padding of queries, in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, unread)
}

/// NaN in a query, a key or a value shows in the outputs of all queries that attend it, and never in those of other
/// sequences and heads; in every type.
pub fn check_visible(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, visible)
}

fn unread(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let (mut poisoned, mut files) = (behind_blocks(engine)?, 0);
    for golden in effort.golden_in(engine.storage) {
        poisoned += changes_nothing(engine, &golden.problem(), &golden.tensors)
            .map_err(|miss| format!("{}: {miss}", golden.name))?;
        files += 1;
    }
    let seeds = effort.numbers(effort.random.div_ceil(4));
    let calls = seeds.len();
    for seed in seeds {
        let class = CLASSES[seed as usize % RANDOM_CLASSES];
        let engine = engine.with_layout(Layout::ALL[seed as usize % 3]);
        let Case { problem, tensors } = case_of(class, 1_000_000 + seed);
        poisoned += changes_nothing(&engine, &problem, &tensors)
            .map_err(|miss| format!("seed 1_000_000 + {seed}, {class:?}: {miss}"))?;
    }
    ensure(poisoned > 500, || format!("only {poisoned} keys poisoned"))?;
    Ok(format!(
        "{poisoned} keys poisoned in {files} files and {calls} random calls change no bit"
    ))
}

/// Blocks that may be copied whole, and padding behind their last rows, which end before what products multiply.
fn behind_blocks(engine: &Engine) -> Result<usize, String> {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 2,
        num_kv_heads: 1,
        seq_q: 140,
        seq_kv: 140,
        head_dim: 40,
        value_dim: 24,
    };
    let span = SequenceSpan {
        q_start: 0,
        q_len: 128,
        kv_start: 0,
        kv_len: 128,
    };
    let rule = Rule::Dense { causal: false };
    let config = PatternConfig::new(rule, 64, 2).with_num_kv_heads(1);
    let (problem, tensors) = call(shape, &config, None, Some(vec![span]), 1.0)?;
    changes_nothing(engine, &problem, &tensors)
        .map_err(|miss| format!("padding behind whole blocks: {miss}"))
}

fn changes_nothing(
    engine: &Engine,
    problem: &AttentionProblem,
    tensors: &Tensors,
) -> Result<usize, String> {
    let mut poisoned = tensors.clone();
    let count = poison(problem, &mut poisoned);
    let clean = engine.run(problem, tensors)?;
    same(compare::difference(
        &engine.run(problem, &poisoned)?,
        &clean,
    ))?;
    Ok(count)
}

fn visible(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let golden = effort.golden_named("mha_basic")?;
    let (problem, shape) = (golden.problem(), golden.shape);
    let (seq, d, dv) = (shape.seq_q, shape.head_dim, shape.value_dim);
    let block = golden.config.block_size;
    let mut seen = 0;
    // Of the first sequence and head: the first, one in the middle of a block, and the last.
    for place in ["q", "k", "v"] {
        for token in [0, 21, seq - 1] {
            let mut tensors = golden.tensors.clone();
            let (rows, width) = match place {
                "q" => (&mut tensors.q, d),
                "k" => (&mut tensors.k, d),
                _ => (&mut tensors.v, dv),
            };
            rows[token * width..][..width].fill(f32::NAN);
            let [out, lse] = engine.call(&problem, &tensors)?.forward()?;
            for (row, lse) in lse.into_iter().enumerate() {
                let out = &out[row * dv..][..dv];
                let line = || format!("NaN in {place} of token {token}, row {row}: {lse}, {out:?}");
                let attended = token <= row
                    && problem.pattern().attends(0, row / block, token / block)
                    && row < seq;
                let shows = if place == "q" { row == token } else { attended };
                if shows {
                    let held = out.iter().all(|x| x.is_nan()) && lse.is_nan() == (place != "v");
                    ensure(held, line)?;
                    seen += 1;
                } else if place == "q" || row >= seq {
                    ensure(lse.is_finite() && out.iter().all(|x| x.is_finite()), line)?;
                }
            }
        }
    }
    ensure(seen > 100, || format!("only {seen} rows"))?;
    Ok(format!("NaN in q, k and v shows in {seen} rows"))
}
