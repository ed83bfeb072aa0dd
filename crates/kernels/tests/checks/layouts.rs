//! Strided views have the bits of contiguous tensors, and nothing is written between their rows.

use super::Effort;
use super::engine::Engine;
use super::storage::Layout;
use super::support::compare;

pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    for golden in &effort.golden {
        let problem = golden.problem();
        let contiguous = engine.run(&problem, &golden.tensors)?;
        for layout in [Layout::Bshd, Layout::Sliced] {
            let strided = engine.with_layout(layout).run(&problem, &golden.tensors);
            let held = strided.and_then(|strided| same(compare::difference(&strided, &contiguous)));
            held.map_err(|miss| format!("{} as {layout:?}: {miss}", golden.name))?;
        }
    }
    Ok(format!(
        "{} files in 2 strided layouts have the same bits",
        effort.golden.len()
    ))
}

/// The difference as a miss.
pub fn same(difference: Option<String>) -> Result<(), String> {
    difference.map_or(Ok(()), Err)
}
