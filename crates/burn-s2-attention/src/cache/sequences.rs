//! The sequences of a cache.

use s2_attention_kernels::cache::{BlockTables, CacheError, SequenceId};

use super::KvCache;
use crate::S2AttentionError;

impl KvCache {
    /// Adds an empty sequence.
    ///
    /// # Errors
    /// [`S2AttentionError::ReservedSequences`].
    pub fn try_add(&mut self) -> Result<SequenceId, S2AttentionError> {
        self.each_group(1, |tables| Ok(tables.add()))
    }

    /// Same as [`try_add`](Self::try_add).
    ///
    /// # Panics
    /// With the text of the error that [`try_add`](Self::try_add) returns.
    pub fn add(&mut self) -> SequenceId {
        self.try_add().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Adds a sequence that begins with the tokens of another: a prompt that several share is read and kept once.
    ///
    /// # Errors
    /// [`S2AttentionError::ReservedSequences`]; of [`S2AttentionError::Cache`] an unknown sequence, and one in a step that is not
    /// committed.
    pub fn try_fork(&mut self, of: SequenceId) -> Result<SequenceId, S2AttentionError> {
        self.each_group(1, |tables| tables.fork(of))
    }

    /// Same as [`try_fork`](Self::try_fork).
    ///
    /// # Panics
    /// With the text of the error that [`try_fork`](Self::try_fork) returns.
    pub fn fork(&mut self, of: SequenceId) -> SequenceId {
        self.try_fork(of).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Frees a sequence's pages and forgets it, also within a step: its rows are computed as before, and nothing of them is kept.
    ///
    /// # Errors
    /// Of [`S2AttentionError::Cache`] an unknown sequence.
    pub fn try_remove(&mut self, sequence: SequenceId) -> Result<(), S2AttentionError> {
        self.each_group(0, |tables| tables.remove(sequence))?;
        self.sequences -= 1;
        Ok(())
    }

    /// Same as [`try_remove`](Self::try_remove).
    ///
    /// # Panics
    /// With the text of the error that [`try_remove`](Self::try_remove) returns.
    pub fn remove(&mut self, sequence: SequenceId) {
        self.try_remove(sequence)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Frees a sequence's pages and makes it empty, also within a step: see [`try_remove`](Self::try_remove).
    ///
    /// # Errors
    /// Of [`S2AttentionError::Cache`] an unknown sequence.
    pub fn try_reset(&mut self, sequence: SequenceId) -> Result<(), S2AttentionError> {
        self.each_group(0, |tables| tables.reset(sequence))
    }

    /// Same as [`try_reset`](Self::try_reset).
    ///
    /// # Panics
    /// With the text of the error that [`try_reset`](Self::try_reset) returns.
    pub fn reset(&mut self, sequence: SequenceId) {
        self.try_reset(sequence)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Tokens of a sequence, those of a step that is not committed included.
    ///
    /// # Errors
    /// Of [`S2AttentionError::Cache`] an unknown sequence.
    pub fn tokens(&self, sequence: SequenceId) -> Result<usize, S2AttentionError> {
        Ok(self.groups[0].tables.tokens(sequence)?)
    }

    /// Sequences in the cache.
    pub fn num_sequences(&self) -> usize {
        self.sequences
    }

    /// Changes the tables of each group, where there is room for `added` sequences. Their sequences are the same: the first fails
    /// or none does, and all give the same.
    fn each_group<T>(
        &mut self,
        added: usize,
        change: impl Fn(&mut BlockTables) -> Result<T, CacheError>,
    ) -> Result<T, S2AttentionError> {
        let sequences = self.sequences + added;
        if let Some(accepted) = self
            .config
            .reserve
            .filter(|accepted| sequences > *accepted && added > 0)
        {
            return Err(S2AttentionError::ReservedSequences { accepted });
        }
        let (first, others) = self
            .groups
            .split_first_mut()
            .ok_or(S2AttentionError::NoLayers)?;
        let result = change(&mut first.tables)?;
        for group in others {
            change(&mut group.tables)?;
        }
        self.sequences = sequences;
        Ok(result)
    }
}
