//! The steps of a cache: new tokens of some of its sequences.

use burn::tensor::{Int, Tensor};
use s2_attention_kernels::cache::{Append, StepItem};

use super::KvCache;
use super::group::Group;
use crate::S2AttentionError;

/// New tokens of some sequences. Their rows are packed in the order in which they were given: all of the first sequence, all of
/// the second, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStep {
    items: Vec<StepItem>,
}

impl CacheStep {
    /// The sequences, with their rows and positions.
    pub fn items(&self) -> &[StepItem] {
        &self.items
    }

    /// Rows of all sequences.
    pub fn rows(&self) -> usize {
        self.items.iter().map(|item| item.q_len).sum()
    }
}

impl KvCache {
    /// Makes room for new tokens of some sequences. Nothing changes where it fails.
    ///
    /// Each layer then calls [`attend`](Self::attend), and [`commit`](Self::commit) ends the step; [`abandon`](Self::abandon) ends
    /// one that cannot be carried out.
    ///
    /// A step may have no new tokens at all. Then nothing is kept, and no layer need attend.
    ///
    /// # Errors
    /// [`S2AttentionError::OpenStep`]; of [`S2AttentionError::Cache`] a step without sequences, a sequence that is unknown, given
    /// twice or would become longer than `max_tokens`, too many tokens for one step, and more pages than a pool may have, which on
    /// GPUs is one buffer; and of [`S2AttentionError::Device`] a step that the device cannot carry out in some layer.
    pub fn try_begin(&mut self, appends: &[Append]) -> Result<CacheStep, S2AttentionError> {
        if self.step.is_some() {
            return Err(S2AttentionError::OpenStep);
        }
        // The tables of all groups hold the same sequences with the same lengths, and none changes before all take the step.
        let mut items = Vec::new();
        for group in &self.groups {
            items = group.tables.items(appends)?;
        }
        self.check_step(&items)?;
        for (index, group) in self.groups.iter_mut().enumerate() {
            let step = group.begin(appends, &self.device)?;
            let copies = step.copies().to_vec();
            let (pages, most) = (group.tables.num_pages(), group.tables.limits().pages);
            for (_, pool) in self.pools.iter_mut().filter(|(group, _)| *group == index) {
                pool.grow(pages, most.unwrap_or(usize::MAX));
                pool.copy(&copies);
            }
        }
        self.pools
            .iter_mut()
            .for_each(|(_, pool)| pool.attended = false);
        let positions = items
            .iter()
            .flat_map(|item| item.kv_len - item.q_len..item.kv_len)
            .map(|position| position as i32);
        let mut positions: Vec<i32> = positions.collect();
        // There is no tensor of none.
        positions.resize(positions.len().max(1), 0);
        self.positions.write(positions, &self.device);
        let longest = items.iter().map(|item| item.kv_len).max();
        self.longest = self.longest.max(longest.unwrap_or(0));
        Ok(self.step.insert(CacheStep { items }).clone())
    }

    /// Same as [`try_begin`](Self::try_begin).
    ///
    /// # Panics
    /// With the text of the error that [`try_begin`](Self::try_begin) returns.
    pub fn begin(&mut self, appends: &[Append]) -> CacheStep {
        self.try_begin(appends)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Ends the step, once all layers have attended: frees the blocks that no later token attends. Without a step it does
    /// nothing.
    ///
    /// # Errors
    /// [`S2AttentionError::NotAttended`]: the pages of that layer would hold nothing of the new tokens. The step stays open;
    /// [`abandon`](Self::abandon) ends it, also where its sequences have been removed.
    pub fn try_commit(&mut self) -> Result<(), S2AttentionError> {
        let rows = self.step.as_ref().map_or(0, CacheStep::rows);
        let left_out = self.pools.iter().position(|(_, pool)| !pool.attended);
        if let Some(layer) = left_out.filter(|_| rows > 0) {
            let attended = self.pools.iter().filter(|(_, pool)| pool.attended);
            return Err(S2AttentionError::NotAttended {
                layer,
                seen: attended.count(),
                accepted: self.pools.len(),
            });
        }
        self.commit_replayed();
        Ok(())
    }

    /// Same as [`try_commit`](Self::try_commit).
    ///
    /// # Panics
    /// With the text of the error that [`try_commit`](Self::try_commit) returns.
    pub fn commit(&mut self) {
        self.try_commit().unwrap_or_else(|error| panic!("{error}"));
    }

    /// [`commit`](Self::commit) of a step that the replay of a captured graph carried out: there no layer calls
    /// [`attend`](Self::attend), and it is the caller who knows that all layers are in the graph.
    pub fn commit_replayed(&mut self) {
        if self.step.take().is_some() {
            self.groups.iter_mut().for_each(Group::commit);
        }
    }

    /// Ends a step that was not carried out to its end. Sequences that it gave tokens to become empty, since their pages hold
    /// nothing of these; what they share with forks, the forks keep. Without a step it does nothing.
    pub fn abandon(&mut self) {
        let items = self.step.as_ref().map_or(&[][..], CacheStep::items);
        let changed = items.iter().filter(|item| item.q_len > 0);
        for sequence in changed.map(|item| item.sequence).collect::<Vec<_>>() {
            // It is not there where it was removed within the step.
            let _ = self.try_reset(sequence);
        }
        self.commit_replayed();
    }

    /// The step that has begun and is not committed.
    pub fn step(&self) -> Option<&CacheStep> {
        self.step.as_ref()
    }

    /// The positions of the first `rows` rows of the step, on the device; those of rows that no sequence owns are below
    /// [`position_limit`](Self::position_limit), and mean nothing. The buffer stays the same from step to step.
    ///
    /// # Errors
    /// [`S2AttentionError::NoStep`], and an axis mismatch for more rows than any step had and than are reserved.
    pub(crate) fn positions(&self, rows: usize) -> Result<Tensor<1, Int>, S2AttentionError> {
        let positions = self.step.as_ref().and(self.positions.tensor());
        let positions = positions.ok_or(S2AttentionError::NoStep)?;
        let [accepted] = positions.dims();
        if rows > accepted {
            return Err(S2AttentionError::AxisMismatch {
                tensor: "x",
                axis: "rows",
                seen: rows,
                other: "the longest step, or the reserve",
                accepted,
            });
        }
        Ok(positions.narrow(0, 0, rows))
    }

    /// What all positions of this and earlier steps are below. It grows in few leaps, or not at all where the cache is reserved.
    pub(crate) fn position_limit(&self) -> usize {
        let max_tokens = self.config.max_tokens;
        if self.config.reserve.is_some() {
            return max_tokens;
        }
        self.longest.next_power_of_two().min(max_tokens)
    }
}
