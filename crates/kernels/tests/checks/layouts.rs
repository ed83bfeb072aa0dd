//! Strided views have the bits of contiguous tensors, and nothing is written between their rows.

use super::engine::Engine;
use super::storage::{Layout, Storage};
use super::support::compare;
use super::{Effort, in_types};

/// In every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut files = 0;
    for golden in effort.golden_in(engine.storage) {
        let problem = golden.problem();
        let contiguous = engine.run(&problem, &golden.tensors)?;
        for layout in [Layout::Bshd, Layout::Sliced] {
            let strided = engine.with_layout(layout).run(&problem, &golden.tensors);
            let held = strided.and_then(|strided| same(compare::difference(&strided, &contiguous)));
            held.map_err(|miss| format!("{} as {layout:?}: {miss}", golden.name))?;
        }
        files += 1;
    }
    Ok(format!(
        "{files} files in 2 strided layouts have the same bits"
    ))
}

/// The difference as a miss.
pub fn same(difference: Option<String>) -> Result<(), String> {
    difference.map_or(Ok(()), Err)
}
