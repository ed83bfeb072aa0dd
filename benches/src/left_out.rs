//! Points that were asked for and have no row, and why: a file beside that of the rows.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::record::{Pass, Record, RecordError};

/// Characters of a reason that are kept.
pub const LONGEST_REASON: usize = 300;

/// A point that a run was asked for and has no row of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The run, as in the rows.
    pub run: String,
    /// Who would have computed it.
    pub provider: String,
    /// The name of the problem.
    pub problem: String,
    /// What would have been timed.
    pub pass: Pass,
    /// Why it was not, in one line of at most [`LONGEST_REASON`] characters.
    pub reason: String,
}

impl LeftOut {
    /// The file beside one of rows: `gpu.left-out.jsonl` beside `gpu.jsonl`.
    pub fn beside(rows: &Path) -> PathBuf {
        rows.with_extension("left-out.jsonl")
    }

    /// Those of a run, or `None` where the file of rows has none beside it: what was left out was not kept.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is no such record.
    pub fn of_run(rows: &Path, run: &str) -> Result<Option<Vec<Self>>, RecordError> {
        let path = Self::beside(rows);
        if !path.exists() {
            return Ok(None);
        }
        let mut all = Self::read(&path)?;
        all.retain(|left_out| left_out.run == run);
        Ok(Some(all))
    }
}

impl Record for LeftOut {
    fn run(&self) -> &str {
        &self.run
    }
}

/// A reason in one line, cut where it is too long.
pub fn in_one_line(reason: &str) -> String {
    let words: Vec<&str> = reason.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST_REASON).collect()
}
