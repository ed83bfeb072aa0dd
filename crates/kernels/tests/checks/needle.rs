//! A huge logit in a block that a query drops must not move its output; in one that it keeps, it must.

use super::engine::Engine;
use super::storage::Storage;
use super::support::golden::Golden;
use super::support::needle::{hold_all, places, planted, share_component};
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
    let (problem, shape) = (golden.problem(), golden.shape);
    let mut golden = golden.clone();
    let tensors = &mut golden.tensors;
    share_component(&mut tensors.q, &mut tensors.k, shape.head_dim);
    let [before, _] = engine.call(&problem, tensors)?.forward()?;
    let mut seen = [0, 0];
    for kv_head in 0..shape.num_kv_heads {
        for needle in places(&golden) {
            let tensors = planted(&golden, kv_head, needle);
            let [after, _] = engine.call(&problem, &tensors)?.forward()?;
            let pairs = hold_all(&golden, [&before, &after], kv_head, needle)?;
            seen = [seen[0] + pairs[0], seen[1] + pairs[1]];
        }
    }
    Ok(seen)
}
