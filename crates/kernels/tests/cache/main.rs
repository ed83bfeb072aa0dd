//! Block tables on the host: retention, pages, words and what is refused.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod capacity;
mod errors;
mod forks;
mod law;
mod long;
mod steps;

use s2_attention_kernels::cache::{Append, BlockTables, CacheLimits, SequenceId, Step};
use s2_attention_pattern::Pattern;

/// Tables without a limit of pages.
fn tables(pattern: &Pattern, max_tokens: usize, evict: bool) -> BlockTables {
    let limits = CacheLimits {
        pages: None,
        max_tokens,
    };
    BlockTables::new(pattern.clone(), limits, evict).unwrap()
}

/// A step of several sequences and their new tokens, of the items that are said before.
fn begin<const N: usize>(tables: &mut BlockTables, appends: [(SequenceId, usize); N]) -> Step {
    let appends = appends.map(|(sequence, tokens)| Append { sequence, tokens });
    let items = tables.items(&appends).unwrap();
    let step = tables.begin(&appends).unwrap();
    assert_eq!(step.items(), items);
    step
}

/// A committed step of one sequence.
fn append(tables: &mut BlockTables, sequence: SequenceId, tokens: usize) -> Step {
    let step = begin(tables, [(sequence, tokens)]);
    tables.commit(&step);
    step
}

/// The blocks of a sequence's key/value head.
fn blocks(tables: &BlockTables, sequence: SequenceId, kv_head: usize) -> Vec<usize> {
    let entries = tables.entries(sequence, kv_head).unwrap();
    entries.iter().map(|entry| entry.block as usize).collect()
}
