//! The tile sizes that are not chosen, but may be the fastest.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::storage::Storage;
use super::worst::Worst;
use super::{Effort, in_types};

/// In every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let (mut worst, mut seen) = (Worst::default(), BTreeSet::new());
    for golden in effort.golden_in(engine.storage) {
        let problem = golden.problem();
        for choice in engine.candidates(&problem)?.iter().skip(1) {
            let tiles = choice.tiles();
            worst
                .run(&engine.with_tiles(&tiles), &problem, &golden.tensors)
                .map_err(|miss| format!("{} by {tiles}: {miss}", golden.name))?;
            seen.insert(tiles);
        }
    }
    if seen.is_empty() {
        return Ok("NOT CHECKED, the device has one tile size".to_owned());
    }
    let seen: Vec<_> = seen.into_iter().collect();
    Ok(format!("{}, {worst}", seen.join(", ")))
}
