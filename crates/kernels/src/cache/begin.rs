//! The beginning and the end of a step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::growth::Growth;
use super::problem::{check_rows, check_words};
use super::tables::Sequence;
use super::{Append, BlockTables, CacheError, SequenceId, Step, StepItem, StepKind};

impl BlockTables {
    /// The items of a step with these appends: [`begin`](Self::begin) takes them. Nothing changes.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub fn items(&self, appends: &[Append]) -> Result<Vec<StepItem>, CacheError> {
        self.planned(appends).map(|(items, _)| items)
    }

    /// Appends tokens to sequences, and finds pages for them. Nothing changes where it fails.
    ///
    /// The step is to be carried out and [`commit`](Self::commit)ted before the sequences are appended to again. One that
    /// cannot be carried out leaves them without keys: [`reset`](Self::reset) or [`remove`](Self::remove) them.
    ///
    /// # Errors
    /// [`CacheError::NoItems`], [`CacheError::UnknownSequence`], [`CacheError::DuplicateSequence`],
    /// [`CacheError::OpenStep`], [`CacheError::TooLong`], [`CacheError::Rows`], [`CacheError::Words`] and
    /// [`CacheError::OutOfPages`].
    pub fn begin(&mut self, appends: &[Append]) -> Result<Step, CacheError> {
        let (items, growths) = self.planned(appends)?;
        self.begun += 1;
        let mut step = Step {
            id: self.begun,
            items,
            lists: Vec::with_capacity(appends.len()),
            copies: Vec::new(),
            kv_heads: self.pattern.num_kv_heads(),
            capacity: self.capacity,
        };
        for (append, growth) in appends.iter().zip(growths) {
            let copies = self.copy_shared(append);
            let unlisted = if self.evict { 0 } else { growth.unlisted };
            let sequence = known(&mut self.sequences, append.sequence);
            growth.append_to(&mut sequence.lists, || self.pages.take());
            sequence
                .unlisted
                .extend((0..unlisted).map(|_| self.pages.take()));
            sequence.tokens += append.tokens;
            sequence.open = Some(step.id);
            step.lists.push(Arc::clone(&sequence.lists));
            step.copies.extend(copies);
        }
        Ok(step)
    }

    /// The items of a step, and the blocks that each of them adds.
    fn planned(&self, appends: &[Append]) -> Result<(Vec<StepItem>, Vec<Growth>), CacheError> {
        self.check_appends(appends)?;
        let mut q_row = 0;
        let planned = appends.iter().map(|append| {
            let tokens = self.sequences[&append.sequence].tokens;
            let item = StepItem {
                sequence: append.sequence,
                q_row,
                q_len: append.tokens,
                kv_len: tokens + append.tokens,
                kind: StepKind::of(append.tokens),
            };
            q_row += append.tokens;
            (item, Growth::new(&self.pattern, tokens, append.tokens))
        });
        let (items, growths): (Vec<StepItem>, Vec<Growth>) = planned.unzip();
        self.check_pages(appends, &growths)?;
        Ok((items, growths))
    }

    /// Ends a step: forgets the blocks that no later query attends, and frees their pages where the cache evicts. Sequences
    /// that were removed or reset since the step began are left alone.
    pub fn commit(&mut self, step: &Step) {
        let block_size = self.pattern.block_size();
        for item in &step.items {
            let Some(sequence) = self.sequences.get_mut(&item.sequence) else {
                continue;
            };
            if sequence.open != Some(step.id) {
                continue;
            }
            sequence.open = None;
            // What is needed changes only where a block is filled.
            let next = item.kv_len / block_size;
            let filled = next > (item.kv_len - item.q_len) / block_size;
            if !filled || sequence.lists.entries().all(|entry| entry.is_needed(next)) {
                continue;
            }
            let (kept, dropped) = sequence.lists.divide(next);
            sequence.lists = Arc::new(kept);
            if self.evict {
                dropped
                    .into_iter()
                    .for_each(|page| self.pages.release(page));
            } else {
                sequence.unlisted.extend(dropped);
            }
        }
    }

    fn check_appends(&self, appends: &[Append]) -> Result<(), CacheError> {
        if appends.is_empty() {
            return Err(CacheError::NoItems);
        }
        let mut items = HashMap::new();
        let mut rows = 0_usize;
        for (item, &Append { sequence, tokens }) in appends.iter().enumerate() {
            let known = self.sequence(sequence)?;
            if let Some(first) = items.insert(sequence, item) {
                return Err(CacheError::DuplicateSequence {
                    sequence,
                    first,
                    second: item,
                });
            }
            if known.open.is_some() {
                return Err(CacheError::OpenStep { sequence });
            }
            if tokens > self.limits.max_tokens - known.tokens {
                return Err(CacheError::TooLong {
                    sequence,
                    tokens: known.tokens,
                    appended: tokens,
                    accepted: self.limits.max_tokens,
                });
            }
            rows = rows.saturating_add(tokens);
        }
        check_rows(rows)?;
        check_words(appends.len(), self.pattern.num_kv_heads(), self.capacity)
    }

    /// Checks that there are pages for a step.
    fn check_pages(&self, appends: &[Append], growths: &[Growth]) -> Result<(), CacheError> {
        let grown: usize = (growths.iter())
            .map(|growth| growth.listed() + if self.evict { 0 } else { growth.unlisted })
            .sum();
        // Of the holders of a page, all that write to it but the last take a page of their own.
        let mut holders = HashMap::new();
        let written = appends.iter().flat_map(|append| self.shared(append));
        let copied = written.filter(|&(_, page)| {
            let holders = holders.entry(page).or_insert(self.pages.holders(page));
            *holders -= 1;
            *holders > 0
        });
        let (needed, free) = (grown + copied.count(), self.pages.available());
        if needed > free {
            return Err(CacheError::OutOfPages {
                needed,
                free,
                pages: self.pages.limit(),
            });
        }
        Ok(())
    }

    /// The key/value heads and pages of a partly filled last block that an append writes to and others hold too.
    fn shared(&self, append: &Append) -> Vec<(usize, u32)> {
        let sequence = &self.sequences[&append.sequence];
        if append.tokens == 0 || sequence.tokens.is_multiple_of(self.pattern.block_size()) {
            return Vec::new();
        }
        let last = sequence.lists.0.iter().map(|list| list.last());
        let pages = last.enumerate().filter_map(|(kv_head, entry)| {
            let page = entry?.page;
            (self.pages.holders(page) > 1).then_some((kv_head, page))
        });
        pages.collect()
    }

    /// Gives an append pages of its own for what it would write to and others hold too: `(from, to)`.
    fn copy_shared(&mut self, append: &Append) -> Vec<(usize, usize)> {
        let shared = self.shared(append);
        if shared.is_empty() {
            return Vec::new();
        }
        let sequence = known(&mut self.sequences, append.sequence);
        let lists = Arc::make_mut(&mut sequence.lists);
        let copies = shared.into_iter().map(|(kv_head, from)| {
            let to = self.pages.take();
            self.pages.release(from);
            if let Some(last) = lists.0[kv_head].last_mut() {
                last.page = to;
            }
            (from as usize, to as usize)
        });
        copies.collect()
    }
}

/// A sequence that has been checked to be there.
fn known(sequences: &mut BTreeMap<SequenceId, Sequence>, id: SequenceId) -> &mut Sequence {
    sequences.get_mut(&id).expect("a checked sequence")
}
