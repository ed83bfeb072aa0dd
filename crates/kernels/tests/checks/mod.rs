//! What the CubeCL engines hold on every device: plain functions, for the tests here and for the command `s2-bench check`.
//!
//! A check returns a line about what was held, or the first miss with its values.
#![allow(dead_code)] // Each program that includes this uses a part.

#[path = "../support/mod.rs"]
pub mod support;

pub mod blocks;
pub mod cached;
pub mod cached_decode;
pub mod decode;
pub mod edges;
pub mod engine;
pub mod errors;
pub mod extremes;
pub mod few_rows;
pub mod golden;
pub mod halves;
pub mod large;
pub mod layouts;
pub mod long;
pub mod mutations;
pub mod needle;
pub mod packed;
pub mod plain;
pub mod poison;
pub mod random;
pub mod refused_steps;
pub mod repeat;
pub mod sizes;
pub mod storage;
pub mod subsets;
pub mod tiles;
pub mod worst;

use engine::Engine;
use storage::Storage;
use support::golden::Golden;

/// How much is checked.
#[derive(Debug, Clone)]
pub struct Effort {
    /// The golden data.
    pub golden: Vec<Golden>,
    /// Random calls against the oracle.
    pub random: u64,
    /// Random runs of steps on a cache.
    pub runs: u64,
    /// The number of the first random call and of the first run.
    pub first: u64,
    /// What this program takes of random calls and runs, and of the other calls of `halves` and `packed`.
    pub share: Share,
    /// Launches of a call that must give the same bits.
    pub repeats: usize,
    /// Compile as many kernels as the checks have uses for, or a few of each kind: a CPU takes a second for each.
    pub all_kernels: bool,
    /// Types of tensors.
    pub types: Vec<Storage>,
}

/// One of several shares of a list, for as many programs side by side: each compiles its kernels one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which one, counted from 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    /// The only one.
    pub const WHOLE: Self = Self { number: 0, of: 1 };

    /// What it has of a list.
    pub fn part_of<T>(&self, list: Vec<T>) -> Vec<T> {
        list.into_iter()
            .skip(self.number)
            .step_by(self.of)
            .collect()
    }
}

/// Files of few kernels between them: GQA, an lse with a gradient, a ragged end, a table with empty rows, widths that differ.
const FEW: [&str; 6] = [
    "mha_basic",
    "gqa_per_kv_head",
    "custom_empty_rows",
    "d_lse",
    "ragged_tail",
    "value_dim",
];

impl Effort {
    /// The numbers of this program's share of `count` random calls or runs.
    fn numbers(&self, count: u64) -> Vec<u64> {
        self.share
            .part_of((self.first..self.first + count).collect())
    }

    /// The golden files of a type: all of f32, and where few kernels are compiled a few of the others.
    fn golden_in(&self, storage: Storage) -> impl Iterator<Item = &Golden> {
        let few: &[&str] = if storage == Storage::F32 { &[] } else { &FEW };
        self.golden_among(few)
    }

    /// The golden files of those stems; all where there are none, or where all kernels are compiled.
    fn golden_among(&self, few: &[&str]) -> impl Iterator<Item = &Golden> {
        let stem = |golden: &Golden| golden.name.rsplit('/').next().map(str::to_owned);
        let among = move |golden: &&Golden| {
            self.all_kernels
                || few.is_empty()
                || stem(golden).is_some_and(|stem| few.contains(&stem.as_str()))
        };
        self.golden.iter().filter(among)
    }

    /// The golden file of that stem.
    fn golden_named(&self, stem: &str) -> Result<&Golden, String> {
        let ending = format!("/{stem}");
        let mut files = self.golden.iter();
        files
            .find(|golden| golden.name.ends_with(&ending))
            .ok_or_else(|| format!("no golden file is called {stem}"))
    }
}

/// A check by name.
pub struct Check {
    /// What `--only` takes.
    pub name: &'static str,
    /// Holds it.
    pub run: fn(&Engine, &Effort) -> Result<String, String>,
}

/// All of them, the most telling first.
pub const CHECKS: [Check; 20] = [
    check("golden", golden::check),
    check("random", random::check),
    check("halves", halves::check),
    check("tiles", tiles::check),
    check("layouts", layouts::check),
    check("subsets", subsets::check),
    check("repeat", repeat::check),
    check("needle", needle::check),
    check("poison", poison::check),
    check("nan", poison::check_visible),
    check("packed", packed::check),
    check("decode", decode::check),
    check("few_rows", few_rows::check),
    check("edges", edges::check),
    check("blocks", blocks::check),
    check("extremes", extremes::check),
    check("long", long::check),
    check("large", large::check),
    check("errors", errors::check),
    check("mutations", mutations::check),
];

const fn check(name: &'static str, run: fn(&Engine, &Effort) -> Result<String, String>) -> Check {
    Check { name, run }
}

/// Holds a check in every type, and says which ones the device does not compute in.
fn in_types(
    engine: &Engine,
    effort: &Effort,
    types: &[Storage],
    check: fn(&Engine, &Effort) -> Result<String, String>,
) -> Result<String, String> {
    let asked = types.iter().any(|storage| effort.types.contains(storage));
    ensure(asked, || {
        format!("holds {types:?}, none of which is asked for")
    })?;
    let mut lines = Vec::new();
    for &storage in types {
        if !effort.types.contains(&storage) {
            lines.push(format!("{storage:?}: NOT CHECKED, not asked for"));
            continue;
        }
        lines.push(match engine.with_storage(storage) {
            Ok(engine) => check(&engine, effort)
                .map(|line| format!("{storage:?}: {line}"))
                .map_err(|miss| format!("{storage:?}: {miss}"))?,
            Err(why) => format!("{storage:?}: NOT CHECKED, {why}"),
        });
    }
    Ok(lines.join("; "))
}

/// The miss, where `held` is false.
fn ensure(held: bool, miss: impl FnOnce() -> String) -> Result<(), String> {
    if held { Ok(()) } else { Err(miss()) }
}
