//! f16 and bf16 against what a plain computation in the same type reaches.

use rayon::prelude::*;
use s2_attention_kernels::AttentionProblem;

use super::engine::Engine;
use super::plain::plain;
use super::storage::{Layout, Storage};
use super::support::random::{CLASSES, Case, case_of};
use super::support::{Results, Tensors, compare, oracle};
use super::{Effort, ensure};

const FEW: [&str; 6] = [
    "mha_basic",
    "gqa_per_kv_head",
    "custom_empty_rows",
    "d_lse",
    "ragged_tail",
    "value_dim",
];
const FEW_CLASSES: usize = 2;
/// Calls that the host computes at a time.
const CHUNK: usize = 64;

/// Each type that the device computes in; the line names those that it does not.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut lines = Vec::new();
    for storage in [Storage::F16, Storage::BF16] {
        lines.push(match engine.with_storage(storage) {
            Some(engine) => of_type(&engine, effort)
                .map(|line| format!("{storage:?}: {line}"))
                .map_err(|miss| format!("{storage:?}: {miss}"))?,
            None => format!("{storage:?}: NOT CHECKED, the device does not compute in it"),
        });
    }
    Ok(lines.join("; "))
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut calls: Vec<(String, AttentionProblem, Tensors)> = effort
        .golden_among(&FEW)
        .map(|file| (file.name.clone(), file.problem(), file.tensors.clone()))
        .collect();
    let classes = if effort.all_kernels {
        &CLASSES[..]
    } else {
        &CLASSES[..FEW_CLASSES]
    };
    for seed in 0..effort.random.div_ceil(4) {
        let class = classes[seed as usize % classes.len()];
        let Case { problem, tensors } = case_of(class, 2_000_000 + seed);
        calls.push((format!("seed 2_000_000 + {seed}"), problem, tensors));
    }
    let mut worst = Shares::default();
    for (chunk, calls) in calls.chunks(CHUNK).enumerate() {
        let expected: Vec<_> = calls
            .par_iter()
            .map(|(_, problem, tensors)| {
                let tensors = rounded(tensors, engine.storage);
                let plain = plain(problem, &tensors, engine.storage);
                let expected = oracle(problem, &tensors);
                (tensors, plain, expected)
            })
            .collect();
        for (at, ((name, problem, _), (tensors, plain, expected))) in
            calls.iter().zip(expected).enumerate()
        {
            let engine = engine.with_layout(Layout::ALL[(chunk + at) % 3]);
            let held = engine
                .run(problem, &tensors)
                .and_then(|results| worst.hold(&results, &plain, &expected));
            held.map_err(|miss| format!("{name}: {miss}"))?;
        }
    }
    // The bars can be missed: by a wrong pattern, and by results of fewer digits.
    let golden = effort.golden_named("mha_basic")?;
    let tensors = rounded(&golden.tensors, engine.storage);
    let plain = plain(&golden.problem(), &tensors, engine.storage);
    let expected = oracle(&golden.problem(), &tensors);
    let config = golden.config.clone().with_head_offset(1);
    let moved = engine.run(&golden.problem_with(&config), &tensors)?;
    let mut coarse = engine.run(&golden.problem(), &tensors)?;
    // Two binary digits fewer than the type has.
    let last = match engine.storage {
        Storage::F16 => 2.0_f64.powi(-9),
        _ => 2.0_f64.powi(-6),
    };
    for x in &mut coarse.out {
        let step = 2.0_f64.powf(x.abs().max(f64::MIN_POSITIVE).log2().floor()) * last;
        *x = (*x / step).round() * step;
    }
    for (name, wrong) in [("another pattern", moved), ("fewer digits", coarse)] {
        ensure(
            Shares::default().hold(&wrong, &plain, &expected).is_err(),
            || format!("the bars hold {name}"),
        )?;
    }
    Ok(format!("{} calls, {worst}", calls.len()))
}

/// The inputs of the type: rounded before anything is computed from them.
fn rounded(tensors: &Tensors, storage: Storage) -> Tensors {
    let round = |values: &[f32]| values.iter().map(|x| storage.round(*x)).collect();
    Tensors {
        q: round(&tensors.q),
        k: round(&tensors.k),
        v: round(&tensors.v),
        d_out: round(&tensors.d_out),
        d_lse: tensors.d_lse.clone(),
    }
}

/// The largest errors beside plain's, of many calls: largest element and Frobenius.
#[derive(Debug, Clone, Copy, Default)]
struct Shares([f64; 2]);

impl Shares {
    /// At most 1.5 times plain's largest error and 1.2 times its Frobenius error; lse within 1e-4.
    fn hold(
        &mut self,
        results: &Results,
        plain: &Results,
        expected: &Results,
    ) -> Result<(), String> {
        let tensors = results.named().into_iter().zip(plain.named());
        for (((name, results), (_, plain)), (_, expected)) in tensors.zip(expected.named()) {
            if name == "lse" {
                compare::tensor(name, results, expected, 1e-4)?;
                continue;
            }
            let (errors, plain) = (errors(results, expected), errors(plain, expected));
            for (at, (kind, factor)) in [("largest", 1.5), ("Frobenius", 1.2)].iter().enumerate() {
                let (error, bar) = (errors[at], factor * plain[at]);
                // Not `error > bar`, which NaN passes.
                let held = error <= bar;
                ensure(held, || {
                    format!("{name}: {kind} error {error:e} above {bar:e}")
                })?;
                if plain[at] > 0.0 {
                    self.0[at] = self.0[at].max(error / plain[at]);
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [largest, frobenius] = self.0;
        write!(
            f,
            "at most {largest:.2}x plain's largest error and {frobenius:.2}x its Frobenius error"
        )
    }
}

/// Largest and Frobenius error.
fn errors(actual: &[f64], expected: &[f64]) -> [f64; 2] {
    let differences = || actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    // `max` would pass over a NaN.
    let largest = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    let squares: f64 = differences()
        .map(|difference| difference * difference)
        .sum();
    [differences().fold(0.0, largest), squares.sqrt()]
}
