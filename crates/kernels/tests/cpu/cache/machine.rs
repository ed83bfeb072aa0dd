//! Random operations on a cache, against a model that keeps every token.

use std::cell::Cell;
use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cache::{
    Append, BlockTables, CacheError, CacheLimits, SequenceId, StepKind,
};
use s2_attention_kernels::cpu::{Real, Stored};

use super::harness::{Cache, tables};
use crate::support::cache::{History, Model, causal_pattern};
use crate::support::compare::{F32, F64, Tolerance};

const MAX_TOKENS: usize = 150;

/// Sequences are drawn by an index into those that are there.
#[derive(Debug, Clone)]
enum Op {
    Add,
    /// Tokens for several sequences; the same sequence twice is left out.
    Append(Vec<(usize, usize)>),
    Fork(usize),
    Reset(usize),
    Remove(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let tokens = prop_oneof![1 => Just(0), 4 => Just(1), 3 => 2usize..=16, 3 => 17usize..=70];
    prop_oneof![
        2 => Just(Op::Add),
        8 => prop::collection::vec((any::<usize>(), tokens), 1..=4).prop_map(Op::Append),
        2 => any::<usize>().prop_map(Op::Fork),
        1 => any::<usize>().prop_map(Op::Reset),
        1 => any::<usize>().prop_map(Op::Remove),
    ]
}

/// A cache that evicts, one that does not, and the model.
struct Machine<F> {
    model: Model,
    evicting: Cache<F>,
    full: Cache<F>,
    /// No sequence shares a page.
    unshared: bool,
    rng: StdRng,
    tolerance: Tolerance,
}

/// What a run has met.
#[derive(Debug, Default)]
struct Met {
    decoded: Cell<usize>,
    prefilled: Cell<usize>,
    copied: Cell<usize>,
    freed: Cell<usize>,
    refused: Cell<usize>,
}

fn count(cell: &Cell<usize>, more: usize) {
    cell.set(cell.get() + more);
}

impl<F: Real + Stored<F>> Machine<F> {
    fn new(seed: u64, pages: Option<usize>, tolerance: Tolerance) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let block = match rng.random_range(0..3) {
            0 => 1 << rng.random_range(0..6),
            _ => rng.random_range(1..=20),
        };
        let pattern = causal_pattern(&mut rng, block, MAX_TOKENS.div_ceil(block));
        let model = Model::new(&pattern, rng.random_range(1..=12), rng.random_range(1..=12));
        let limits = CacheLimits {
            pages,
            max_tokens: MAX_TOKENS,
        };
        let limited = BlockTables::new(pattern.clone(), limits, true).unwrap();
        Self {
            evicting: Cache::new(limited, &model),
            full: Cache::new(tables(&pattern, MAX_TOKENS, false), &model),
            model,
            unshared: true,
            rng,
            tolerance,
        }
    }

    fn run(&mut self, ops: &[Op], met: &Met) -> Result<(), TestCaseError> {
        for op in ops {
            match op {
                Op::Add => self.add()?,
                Op::Append(appends) => self.append(appends, met)?,
                Op::Fork(index) => self.fork(*index)?,
                Op::Reset(index) => {
                    if let Some(sequence) = self.pick(*index) {
                        self.evicting.reset(sequence);
                        self.full.reset(sequence);
                        self.model.histories.insert(sequence, History::default());
                    }
                }
                Op::Remove(index) => {
                    if let Some(sequence) = self.pick(*index) {
                        self.evicting.remove(sequence);
                        self.full.remove(sequence);
                        self.model.histories.remove(&sequence);
                    }
                }
            }
            self.check_pages(met)?;
        }
        Ok(())
    }

    fn pick(&self, index: usize) -> Option<SequenceId> {
        let sequences = &self.evicting.sequences;
        let at = index.checked_rem(sequences.len())?;
        Some(sequences[at])
    }

    fn add(&mut self) -> Result<(), TestCaseError> {
        let sequence = self.evicting.add();
        prop_assert_eq!(self.full.add(), sequence);
        self.model.histories.insert(sequence, History::default());
        Ok(())
    }

    fn fork(&mut self, index: usize) -> Result<(), TestCaseError> {
        let Some(of) = self.pick(index) else {
            return Ok(());
        };
        let sequence = self.evicting.fork(of).unwrap();
        prop_assert_eq!(self.full.fork(of).unwrap(), sequence);
        let history = self.model.histories[&of].clone();
        self.model.histories.insert(sequence, history);
        self.unshared = false;
        Ok(())
    }

    fn append(&mut self, drawn: &[(usize, usize)], met: &Met) -> Result<(), TestCaseError> {
        let mut appends: Vec<Append> = Vec::new();
        for &(index, tokens) in drawn {
            let Some(sequence) = self.pick(index) else {
                return Ok(());
            };
            if appends.iter().all(|append| append.sequence != sequence) {
                appends.push(Append { sequence, tokens });
            }
        }
        let rows = appends.iter().map(|append| append.tokens).sum();
        let rows = self.model.draw(rows, &mut self.rng);
        let before = (
            self.evicting.tables.used_pages(),
            self.evicting.tables.num_pages(),
        );
        let (step, evicted) = match self.evicting.step(&appends, &rows) {
            Ok(done) => done,
            Err(error) => {
                count(&met.refused, 1);
                let tables = &self.evicting.tables;
                prop_assert_eq!((tables.used_pages(), tables.num_pages()), before);
                return self.check_refusal(&appends, &error);
            }
        };
        let (_, full) = self.full.step(&appends, &rows).unwrap();
        prop_assert_eq!(evicted.difference(&full), None, "without eviction");

        self.model.append(&step, &rows);
        let (heads, dv) = (self.model.pattern.num_heads(), self.model.value_dim);
        for item in step.items() {
            let expected = self.model.expected(item, &rows);
            (evicted
                .of_item(item, heads, dv)
                .hold(&expected, self.tolerance))
            .map_err(|miss| TestCaseError::fail(format!("{item:?}: {miss}")))?;
            match item.kind {
                StepKind::Decode => count(&met.decoded, item.q_len),
                StepKind::Prefill => count(&met.prefilled, item.q_len),
            }
        }
        count(&met.copied, step.copies().len());
        Ok(())
    }

    /// A step is refused where a sequence would become too long, or the pool is too small.
    fn check_refusal(&self, appends: &[Append], error: &CacheError) -> Result<(), TestCaseError> {
        let too_long = appends
            .iter()
            .find(|append| self.model.tokens(append.sequence) + append.tokens > MAX_TOKENS);
        match (error.clone(), too_long) {
            (
                CacheError::TooLong {
                    sequence, tokens, ..
                },
                Some(append),
            ) => {
                prop_assert_eq!(sequence, append.sequence);
                prop_assert_eq!(tokens, self.model.tokens(sequence));
            }
            (
                CacheError::OutOfPages {
                    needed,
                    free,
                    pages,
                },
                None,
            ) => {
                prop_assert!(needed > free);
                prop_assert_eq!(free, pages - self.evicting.tables.used_pages());
            }
            (_, too_long) => prop_assert!(false, "{} with {:?} too long", error, too_long),
        }
        for append in appends {
            let tokens = self.evicting.tables.tokens(append.sequence).unwrap();
            prop_assert_eq!(tokens, self.model.tokens(append.sequence));
        }
        Ok(())
    }

    /// Lists, lengths and pages are those of the retention rule.
    fn check_pages(&self, met: &Met) -> Result<(), TestCaseError> {
        let pattern = &self.model.pattern;
        let (block, kv_heads) = (pattern.block_size(), pattern.num_kv_heads());
        let mut holders: HashMap<u32, (usize, u32)> = HashMap::new();
        let [mut predicted, mut all] = [0, 0];
        for &sequence in &self.evicting.sequences {
            let tokens = self.model.tokens(sequence);
            prop_assert_eq!(self.evicting.tables.tokens(sequence).unwrap(), tokens);
            prop_assert_eq!(self.full.tables.tokens(sequence).unwrap(), tokens);
            for kv_head in 0..kv_heads {
                let next = tokens / block;
                let part = (!tokens.is_multiple_of(block)).then_some(next);
                let needed: Vec<usize> = pattern.retained(kv_head, next).chain(part).collect();
                for cache in [&self.evicting, &self.full] {
                    let entries = cache.tables.entries(sequence, kv_head).unwrap();
                    let blocks: Vec<usize> =
                        entries.iter().map(|entry| entry.block as usize).collect();
                    prop_assert_eq!(&blocks, &needed, "{}, head {}", sequence, kv_head);
                }
                for entry in self.evicting.tables.entries(sequence, kv_head).unwrap() {
                    let content = (kv_head, entry.block);
                    let held = *holders.entry(entry.page).or_insert(content);
                    prop_assert_eq!(held, content, "page {} has two contents", entry.page);
                }
            }
            predicted += self.evicting.tables.predicted_pages(tokens).unwrap();
            all += self.full.tables.full_pages(tokens);
        }
        prop_assert_eq!(self.evicting.tables.used_pages(), holders.len());
        if self.unshared {
            prop_assert_eq!(self.evicting.tables.used_pages(), predicted);
            prop_assert_eq!(self.full.tables.used_pages(), all);
        } else {
            prop_assert!(self.evicting.tables.used_pages() <= predicted);
            prop_assert!(self.full.tables.used_pages() <= all);
        }
        count(&met.freed, all - predicted);
        Ok(())
    }
}

fn run<F: Real + Stored<F>>(cases: u32, tolerance: Tolerance) {
    let met = Met::default();
    let pages = prop_oneof![3 => Just(None), 1 => (5usize..60).prop_map(Some)];
    let ops = prop::collection::vec(op(), 1..=30);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&(any::<u64>(), pages, ops), |(seed, pages, ops)| {
        Machine::<F>::new(seed, pages, tolerance).run(&ops, &met)
    });
    ran.unwrap();
    println!("{met:?}");
    let enough = [(&met.decoded, 8), (&met.prefilled, 30), (&met.freed, 40)];
    for (met, least) in enough {
        assert!(met.get() >= cases as usize * least);
    }
    // Some of the operations.
    for met in [&met.copied, &met.refused] {
        assert!(met.get() >= cases as usize / 8);
    }
}

#[test]
fn f32_operations_equal_the_model() {
    run::<f32>(400, F32);
}

#[test]
fn f64_operations_equal_the_model() {
    run::<f64>(400, F64);
}
