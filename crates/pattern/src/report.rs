//! What a pattern costs and reaches at a given length.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::MAX_BLOCKS;
use crate::coverage::{coverage, dense_pairs};
use crate::error::PatternError;
use crate::pattern::Pattern;
use crate::schedule::HeadSchedule;

/// Exact figures of a pattern for one sequence of tokens that attends itself, over the active
/// heads.
///
/// "Dense" is what causality allows: the triangle for a causal head, the square for a bidirectional
/// one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatternReport {
    /// The pattern in one line.
    pub pattern: String,
    /// Length of the sequence, in tokens.
    pub tokens: usize,
    /// Length of the sequence, in blocks; the last may be filled in part.
    pub blocks: usize,
    /// Attended (query, key) token pairs, over all heads.
    pub attended_pairs: u128,
    /// Token pairs of dense attention, over all heads.
    pub dense_pairs: u128,
    /// `attended_pairs / dense_pairs`.
    pub density: f64,
    /// `dense_pairs / attended_pairs`: the speed-up over dense attention at equal speed per pair.
    /// `None` where nothing is attended.
    pub ideal_speedup: Option<f64>,
    /// Each query head.
    pub heads: Vec<HeadReport>,
    /// Block pairs of a head: how evenly heads share the work.
    pub head_work: Balance,
    /// Key blocks of a row of a head: how evenly the forward pass splits by query block.
    pub row_work: Balance,
    /// Query blocks of a column of a head: how evenly the backward pass splits by key block.
    pub column_work: Balance,
    /// Rows of all heads that attend nothing; their output is zero.
    pub empty_rows: usize,
    /// Each KV head.
    pub kv_heads: Vec<KvHeadReport>,
    /// Whether a block that has left a row never comes back: `P[h,i,j] => P[h,i-1,j]` for `i > j`,
    /// in every head.
    pub kv_efficient: bool,
    /// A head, row and column that break this rule.
    pub kv_inefficient_at: Option<[usize; 3]>,
    /// The fraction of dense block pairs that some head attends.
    pub coverage: f64,
}

/// One query head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadReport {
    /// Attended token pairs.
    pub attended_pairs: u128,
    /// Attended over dense token pairs.
    pub density: f64,
    /// Attended block pairs.
    pub block_pairs: usize,
    /// Rows that attend nothing.
    pub empty_rows: usize,
}

/// One KV head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KvHeadReport {
    /// Tokens of the sequence whose keys and values its last block of queries, or a later one,
    /// attends: what a cache holds.
    pub kept_tokens: usize,
    /// The fraction of dense block pairs that some query head of the group attends.
    pub coverage: f64,
}

/// The spread of work over equal tasks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// The lightest task.
    pub min: usize,
    /// The mean.
    pub mean: f64,
    /// The heaviest task.
    pub max: usize,
}

impl PatternReport {
    /// The figures of `pattern` for a sequence of `tokens` tokens. Takes time in proportion to
    /// `blocks * schedules`.
    ///
    /// # Errors
    /// No tokens, more than [`MAX_BLOCKS`] blocks of them, or more than the pattern's table covers.
    pub fn new(pattern: &Pattern, tokens: usize) -> Result<Self, PatternError> {
        if tokens == 0 {
            return Err(PatternError::TooSmall {
                name: "tokens",
                value: 0,
                min: 1,
            });
        }
        let block_size = pattern.block_size();
        let blocks = tokens.div_ceil(block_size);
        if blocks > MAX_BLOCKS {
            return Err(PatternError::TooLarge {
                name: "blocks of tokens",
                value: blocks as i128,
                max: MAX_BLOCKS,
            });
        }
        if let Some((q_blocks, kv_blocks)) = pattern.max_blocks()
            && blocks > q_blocks.min(kv_blocks)
        {
            return Err(PatternError::BeyondTable {
                blocks,
                q_blocks,
                kv_blocks,
            });
        }
        let counts: Vec<Counts> = pattern
            .schedules()
            .iter()
            .map(|schedule| Counts::new(schedule, block_size, tokens))
            .collect();
        let counts: Vec<&Counts> = (0..pattern.num_heads())
            .map(|head| &counts[pattern.schedule_index(head)])
            .collect();

        let attended_pairs: u128 = counts.iter().map(|counts| counts.attended_pairs).sum();
        let dense_pairs = counts.iter().map(|counts| counts.dense_pairs).sum();
        let inefficient = |head: usize| counts[head].kv_inefficient_at.map(|[i, j]| [head, i, j]);
        let kv_inefficient_at = (0..pattern.num_heads()).find_map(inefficient);
        Ok(Self {
            pattern: pattern.to_string(),
            tokens,
            blocks,
            attended_pairs,
            dense_pairs,
            density: attended_pairs as f64 / dense_pairs as f64,
            ideal_speedup: (attended_pairs > 0).then(|| dense_pairs as f64 / attended_pairs as f64),
            heads: counts.iter().map(|counts| counts.report()).collect(),
            head_work: Balance::of(counts.iter().map(|counts| counts.block_pairs)),
            row_work: Balance::joined(counts.iter().map(|counts| counts.rows)),
            column_work: Balance::joined(counts.iter().map(|counts| counts.columns)),
            empty_rows: counts.iter().map(|counts| counts.empty_rows).sum(),
            kv_heads: (0..pattern.num_kv_heads())
                .map(|kv_head| kv_report(pattern, kv_head, tokens))
                .collect(),
            kv_efficient: kv_inefficient_at.is_none(),
            kv_inefficient_at,
            coverage: coverage(&pattern.schedules().iter().collect::<Vec<_>>(), blocks),
        })
    }
}

/// The figures of one schedule.
struct Counts {
    attended_pairs: u128,
    dense_pairs: u128,
    block_pairs: usize,
    empty_rows: usize,
    rows: Balance,
    columns: Balance,
    kv_inefficient_at: Option<[usize; 2]>,
}

impl Counts {
    fn new(schedule: &HeadSchedule, block_size: usize, tokens: usize) -> Self {
        let blocks = tokens.div_ceil(block_size);
        // Tokens that the last block lacks.
        let missing = blocks * block_size - tokens;
        let (mut attended_pairs, mut block_pairs, mut empty_rows) = (0, 0, 0);
        let row_counts = (0..blocks).map(|i| {
            let count = schedule.row(i, 0..blocks).count();
            let queries = block_size - if i + 1 == blocks { missing } else { 0 };
            let absent = if missing > 0 && schedule.keeps(i, blocks - 1) {
                missing
            } else {
                0
            };
            attended_pairs += queries as u128 * (count * block_size - absent) as u128;
            if schedule.is_causal() && schedule.keeps(i, i) {
                attended_pairs -= (queries * (queries - 1) / 2) as u128;
            }
            block_pairs += count;
            empty_rows += usize::from(count == 0);
            count
        });
        let rows = Balance::of(row_counts);
        Self {
            attended_pairs,
            dense_pairs: dense_pairs(schedule.is_causal(), tokens),
            block_pairs,
            empty_rows,
            rows,
            columns: Balance::of((0..blocks).map(|j| schedule.column(j, 0..blocks).count())),
            kv_inefficient_at: (0..blocks)
                .find_map(|j| Some([comes_back(schedule, j, blocks)?, j])),
        }
    }

    fn report(&self) -> HeadReport {
        HeadReport {
            attended_pairs: self.attended_pairs,
            density: self.attended_pairs as f64 / self.dense_pairs as f64,
            block_pairs: self.block_pairs,
            empty_rows: self.empty_rows,
        }
    }
}

/// The first row after `j` that attends `j` although the row before it does not.
fn comes_back(schedule: &HeadSchedule, j: usize, blocks: usize) -> Option<usize> {
    let column = schedule.column(j, j..blocks);
    let mut next = j;
    let Some(pieces) = column.pieces() else {
        return column
            .iter()
            .find(|&i| i != std::mem::replace(&mut next, i + 1));
    };
    for piece in pieces {
        if piece.start != next {
            return Some(piece.start);
        }
        if piece.step > 1 && piece.count > 1 {
            return Some(piece.start + piece.step);
        }
        next = piece.start + piece.count;
    }
    None
}

fn kv_report(pattern: &Pattern, kv_head: usize, tokens: usize) -> KvHeadReport {
    let block_size = pattern.block_size();
    let last = (tokens - 1) / block_size;
    let needed = (0..=last).filter(|&j| pattern.released_at(kv_head, j).is_none_or(|at| at > last));
    let kept_tokens = needed
        .map(|j| block_size.min(tokens - j * block_size))
        .sum();
    let mut group: Vec<usize> = pattern
        .heads()
        .query_heads(kv_head)
        .map(|head| pattern.schedule_index(head))
        .collect();
    group.sort_unstable();
    group.dedup();
    let group: Vec<&HeadSchedule> = group
        .into_iter()
        .map(|index| &pattern.schedules()[index])
        .collect();
    KvHeadReport {
        kept_tokens,
        coverage: coverage(&group, last + 1),
    }
}

impl Balance {
    fn of(work: impl ExactSizeIterator<Item = usize>) -> Self {
        let tasks = work.len();
        let (mut min, mut sum, mut max) = (usize::MAX, 0, 0);
        for work in work {
            (min, sum, max) = (min.min(work), sum + work, max.max(work));
        }
        Self {
            min,
            mean: sum as f64 / tasks as f64,
            max,
        }
    }

    /// The spread over several lots of equally many tasks.
    fn joined(lots: impl ExactSizeIterator<Item = Balance>) -> Self {
        let count = lots.len();
        let (mut min, mut sum, mut max) = (usize::MAX, 0.0, 0);
        for lot in lots {
            (min, sum, max) = (min.min(lot.min), sum + lot.mean, max.max(lot.max));
        }
        Self {
            min,
            mean: sum / count as f64,
            max,
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}, mean {:.1}", self.min, self.max, self.mean)
    }
}

impl fmt::Display for PatternReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = Balance::of(self.kv_heads.iter().map(|kv_head| kv_head.kept_tokens));
        writeln!(f, "{}", self.pattern)?;
        writeln!(
            f,
            "length               {} tokens, {} blocks",
            self.tokens, self.blocks
        )?;
        writeln!(f, "density              {:.4} %", 100.0 * self.density)?;
        match self.ideal_speedup {
            Some(speedup) => writeln!(f, "ideal speed-up       {speedup:.2}x over dense")?,
            None => writeln!(f, "ideal speed-up       nothing is attended")?,
        }
        writeln!(f, "block pairs per head {}", self.head_work)?;
        writeln!(f, "key blocks per row   {}", self.row_work)?;
        writeln!(f, "query blocks per col {}", self.column_work)?;
        writeln!(f, "empty rows           {}", self.empty_rows)?;
        writeln!(f, "KV tokens kept       {kept} per KV head")?;
        match self.kv_inefficient_at {
            None => writeln!(f, "KV-efficient         yes")?,
            Some([head, i, j]) => {
                writeln!(
                    f,
                    "KV-efficient         no: head {head}, key block {j} comes back in row {i}"
                )?;
            }
        }
        write!(
            f,
            "coverage             {:.2} % by all heads together",
            100.0 * self.coverage
        )
    }
}
