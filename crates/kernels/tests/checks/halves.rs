//! f16 and bf16 against what a plain computation in the same type reaches.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rayon::prelude::*;
use s2_attention_kernels::{AttentionProblem, AttentionShape};
use s2_attention_pattern::{PatternConfig, Rule};

use super::engine::Engine;
use super::storage::{Layout, Storage};
use super::support::Tensors;
use super::support::random::{CLASSES, Case, Class, STD, case_of, tensors};
use super::worst::{Expected, Worst};
use super::{Effort, ensure, in_types};

const FEW_CLASSES: usize = 2;
/// Calls that the host computes at a time.
const CHUNK: usize = 64;

/// Kinds of heads whose calls have more tiles than a device has processors, so that cubes that stay take several.
const MANY_TILES: [Class; 4] = [
    Class::of(64, 64, 64),
    Class::of(64, 128, 128),
    Class::of(64, 256, 256),
    Class::of(32, 160, 200),
];

/// One whose tiles of several blocks visit some blocks at distances of two intervals.
const TWICE: Class = Class::of(32, 128, 128);

/// A call of 144 tiles of 192 rows, and more of fewer.
fn many_tiles(class: Class, rule: Rule) -> Result<(String, AttentionProblem, Tensors), String> {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 48,
        num_kv_heads: 48,
        seq_q: 400,
        seq_kv: 400,
        head_dim: class.head_dim,
        value_dim: class.value_dim,
    };
    let pattern = PatternConfig::new(rule, class.block, shape.num_heads);
    let pattern = pattern.build().map_err(|error| error.to_string())?;
    let problem = AttentionProblem::new(shape, &pattern, None, None);
    let problem = problem.map_err(|error| error.to_string())?;
    let tensors = tensors(&shape, STD, true, &mut StdRng::seed_from_u64(5));
    Ok((format!("many tiles, {class:?}"), problem, tensors))
}

/// The golden data, random calls and calls of many tiles, and that the bars can be missed.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::HALVES, of_type)
}

fn of_type(engine: &Engine, effort: &Effort) -> Result<String, String> {
    let mut calls: Vec<(String, AttentionProblem, Tensors)> = effort
        .golden_in(engine.storage)
        .map(|file| (file.name.clone(), file.problem(), file.tensors.clone()))
        .collect();
    let classes = if effort.all_kernels {
        &CLASSES[..]
    } else {
        &CLASSES[..FEW_CLASSES]
    };
    if effort.all_kernels {
        for class in MANY_TILES {
            let rule = Rule::LocalStride {
                local_blocks: 2,
                vert_stride: 4,
            };
            calls.push(many_tiles(class, rule)?);
        }
        let rule = Rule::Ranges {
            strides: vec![2, 3],
            range_blocks: vec![8],
        };
        calls.push(many_tiles(TWICE, rule)?);
    }
    let mut calls = effort.share.part_of(calls);
    for seed in effort.numbers(effort.random.div_ceil(4)) {
        let class = classes[seed as usize % classes.len()];
        let Case { problem, tensors } = case_of(class, 2_000_000 + seed);
        calls.push((format!("seed 2_000_000 + {seed}"), problem, tensors));
    }
    let mut worst = Worst::default();
    for (chunk, calls) in calls.chunks(CHUNK).enumerate() {
        let expected: Vec<_> = calls
            .par_iter()
            .map(|(_, problem, tensors)| Expected::new(problem, tensors, engine.storage))
            .collect();
        for (at, ((name, problem, _), expected)) in calls.iter().zip(expected).enumerate() {
            let engine = engine.with_layout(Layout::ALL[(chunk + at) % 3]);
            let held = engine
                .run(problem, &expected.tensors)
                .and_then(|results| worst.hold(&results, &expected));
            held.map_err(|miss| format!("{name}: {miss}"))?;
        }
    }
    // The bars can be missed: by a wrong pattern, and by results of fewer digits.
    let golden = effort.golden_named("mha_basic")?;
    let expected = Expected::new(&golden.problem(), &golden.tensors, engine.storage);
    let config = golden.config.clone().with_head_offset(1);
    let moved = engine.run(&golden.problem_with(&config), &expected.tensors)?;
    let mut coarse = engine.run(&golden.problem(), &expected.tensors)?;
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
        ensure(Worst::default().hold(&wrong, &expected).is_err(), || {
            format!("the bars hold {name}")
        })?;
    }
    Ok(format!("{} calls, {worst}", calls.len()))
}
