//! A huge logit in a block that a query drops must not move its output; in one that it keeps, it must.

use super::engine::Engine;
use super::storage::Storage;
use super::support::golden::Golden;
use super::{Effort, ensure, in_types};

/// Pairs of a key and a query of a file that must be among those seen, on average.
const LEAST_DROPPED: usize = 3_000;
const LEAST_KEPT: usize = 1_000;

/// The last key of every block, and the last of all, of every key/value head, in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let [mut dropped, mut kept, mut files] = [0, 0, 0];
    let golden = effort.golden_in(engine.storage);
    for golden in golden.filter(|file| file.shape.batch == 1) {
        let seen = plant_all(engine, golden).map_err(|miss| format!("{}: {miss}", golden.name))?;
        dropped += seen[0];
        kept += seen[1];
        files += 1;
    }
    let line = format!("{dropped} pairs dropped, {kept} kept in {files} files");
    let enough = dropped > files * LEAST_DROPPED && kept > files * LEAST_KEPT && files > 0;
    ensure(enough, || format!("only {line}"))?;
    Ok(line)
}

fn plant_all(engine: &Engine, golden: &Golden) -> Result<[usize; 2], String> {
    let (shape, block) = (golden.shape, golden.config.block_size);
    let mut golden = golden.clone();
    // All queries share a component that no key has.
    let first_of = |rows: &mut [f32], value: f32| {
        let components = rows.iter_mut().step_by(shape.head_dim);
        components.for_each(|component| *component = value);
    };
    first_of(&mut golden.tensors.q, 4.0);
    first_of(&mut golden.tensors.k, 0.0);
    let [before, _] = engine.call(&golden.problem(), &golden.tensors)?.forward()?;
    let mut seen = [0, 0];
    for kv_head in 0..shape.num_kv_heads {
        let ends = (block - 1..shape.seq_kv).step_by(block);
        for needle in ends.chain([shape.seq_kv - 1]) {
            let pairs = plant(engine, &golden, &before, kv_head, needle)?;
            seen = [seen[0] + pairs[0], seen[1] + pairs[1]];
        }
    }
    Ok(seen)
}

/// Plants a key that every query of a key/value head agrees with, and holds every query to the pattern's word.
fn plant(
    engine: &Engine,
    golden: &Golden,
    before: &[f64],
    kv_head: usize,
    needle: usize,
) -> Result<[usize; 2], String> {
    let (problem, shape) = (golden.problem(), golden.shape);
    let (d, dv, block) = (shape.head_dim, shape.value_dim, golden.config.block_size);
    let mut tensors = golden.tensors.clone();
    let row = kv_head * shape.seq_kv + needle;
    tensors.k[row * d] = 20.0 * (d as f32).sqrt();
    tensors.v[row * dv..][..dv].fill(100.0);
    let [after, _] = engine.call(&problem, &tensors)?.forward()?;

    let key = golden.span.kv_start + needle;
    let group = shape.num_heads / shape.num_kv_heads;
    let mut seen = [0, 0];
    for head in 0..shape.num_heads {
        let causal = problem.pattern().head(head).is_causal();
        for token in 0..shape.seq_q {
            let query = golden.span.q_start + token;
            let kept = head / group == kv_head
                && (!causal || key <= query)
                && problem.pattern().attends(head, query / block, key / block);
            let at = (head * shape.seq_q + token) * dv;
            let moved = before[at..][..dv].iter().zip(&after[at..][..dv]);
            let place = || format!("key {key}, head {head}, query {query}");
            if kept {
                let moves = moved.map(|(before, after)| (after - before).abs());
                let least = moves.fold(f64::MAX, f64::min);
                ensure(least > 50.0, || {
                    format!("{}: kept, but moved by {least} only", place())
                })?;
            } else {
                let same = moved.into_iter().all(|(a, b)| a.to_bits() == b.to_bits());
                ensure(same, || format!("{}: dropped, but moved", place()))?;
            }
            seen[usize::from(kept)] += 1;
        }
    }
    Ok(seen)
}
