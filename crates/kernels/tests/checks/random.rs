//! Random calls against the host oracle.

use std::collections::HashSet;

use rayon::prelude::*;

use super::engine::Engine;
use super::storage::{Layout, Storage};
use super::support::compare::{F32, Worst};
use super::support::random::{CLASSES, Case, case_of};
use super::support::{Results, oracle};
use super::{Effort, ensure, in_types};

/// Kernels that may be compiled for it: three for a class as table and as closed form, and one for a value dim.
const MOST_KERNELS: usize = 60;
/// Classes where few kernels are compiled.
const FEW_CLASSES: usize = 5;
/// Calls that the host computes at a time.
const CHUNK: usize = 128;

/// f32 within the bars, in every layout.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &[Storage::F32], of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let engines = Layout::ALL.map(|layout| engine.with_layout(layout));
    let classes = if effort.all_kernels {
        &CLASSES[..]
    } else {
        &CLASSES[..FEW_CLASSES]
    };
    let class = |seed: u64| classes[seed as usize % classes.len()];
    let mut worst = Worst::default();
    let (mut kernels, mut prepasses) = (HashSet::new(), HashSet::new());
    let all = effort.numbers(effort.random);
    for seeds in all.chunks(CHUNK) {
        let expected = |seed: u64| -> (u64, Case, Results) {
            let case = case_of(class(seed), seed);
            let expected = oracle(&case.problem, &case.tensors);
            (seed, case, expected)
        };
        let cases: Vec<_> = seeds.par_iter().copied().map(expected).collect();
        for (seed, Case { problem, tensors }, expected) in cases {
            // Classes and layouts in all combinations.
            let engine = &engines[(seed as usize / classes.len()) % engines.len()];
            let results = engine.run(&problem, &tensors);
            let held = results.and_then(|results| worst.hold(&results, &expected, F32));
            held.map_err(|miss| {
                let call = format!("seed {seed}, {:?} as {:?}", class(seed), engine.layout);
                format!("{call}: {miss}\n{problem:?}")
            })?;
            let mut heads = problem.pattern().schedules().iter();
            let table = heads.any(|head| head.bands().is_none());
            kernels.insert((class(seed), table));
            prepasses.insert(class(seed).value_dim);
        }
    }
    let compiled = 3 * kernels.len() + prepasses.len();
    ensure(compiled <= MOST_KERNELS, || {
        format!("{compiled} kernels compiled, {MOST_KERNELS} at most")
    })?;
    Ok(format!(
        "{} calls over {compiled} kernels, {worst}",
        all.len()
    ))
}
