//! What an append adds to the lists of a sequence.

use std::sync::Arc;

use s2_attention_pattern::Pattern;

use super::StepKind;
use super::lists::{Entry, Lists, released_at};

/// The new blocks of an append, before they have pages.
#[derive(Debug)]
pub(super) struct Growth {
    /// The entries of each key/value head, ascending; none at all where no block begins.
    entries: Vec<Vec<Entry>>,
    /// New blocks of all heads that no later step needs, and that the step itself reads from its rows.
    pub(super) unlisted: usize,
}

impl Growth {
    /// Of a sequence of `tokens` tokens that gets `appended` more.
    pub(super) fn new(pattern: &Pattern, tokens: usize, appended: usize) -> Self {
        let block_size = pattern.block_size();
        let kv_len = tokens + appended;
        let blocks = tokens.div_ceil(block_size)..kv_len.div_ceil(block_size);
        let mut growth = Self {
            entries: Vec::new(),
            unlisted: 0,
        };
        if blocks.is_empty() {
            return growth;
        }
        for kv_head in 0..pattern.num_kv_heads() {
            let new = blocks.clone().map(|block| Entry {
                block: block as u32,
                page: 0,
                released_at: released_at(pattern, kv_head, block),
            });
            let entries: Vec<Entry> = match StepKind::of(appended) {
                StepKind::Decode => new.collect(),
                StepKind::Prefill => new
                    .filter(|entry| entry.is_needed(kv_len / block_size))
                    .collect(),
            };
            growth.unlisted += blocks.len() - entries.len();
            growth.entries.push(entries);
        }
        growth
    }

    /// Pages that the entries take.
    pub(super) fn listed(&self) -> usize {
        self.entries.iter().map(Vec::len).sum()
    }

    /// Adds the entries to a sequence's lists, with pages.
    pub(super) fn append_to(self, lists: &mut Arc<Lists>, mut take_page: impl FnMut() -> u32) {
        if self.listed() == 0 {
            return;
        }
        let lists = Arc::make_mut(lists);
        for (list, entries) in lists.0.iter_mut().zip(self.entries) {
            list.extend(entries.into_iter().map(|entry| Entry {
                page: take_page(),
                ..entry
            }));
        }
    }
}
