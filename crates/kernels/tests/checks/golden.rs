//! The golden data, forward and backward.

use super::engine::Engine;
use super::storage::Storage;
use super::support::compare::{self, F32};
use super::{Effort, in_types};

/// f32 within the bars of every file.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &[Storage::F32], of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut worst = compare::Worst::default();
    for golden in &effort.golden {
        let results = engine.run(&golden.problem(), &golden.tensors);
        let held = results.and_then(|results| worst.hold(&results, &golden.results, F32));
        held.map_err(|miss| format!("{}: {miss}", golden.name))?;
    }
    Ok(format!("{} files, {worst}", effort.golden.len()))
}
