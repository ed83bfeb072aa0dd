//! Query tiles, and the runs of keys that a tile attends.

use std::ops::Range;

use s2_attention_pattern::HeadSchedule;

use super::TILE_QUERIES;
use crate::SequenceSpan;

/// Neighbouring queries of one sequence: at most [`TILE_QUERIES`], and either several whole pattern blocks (fewer at
/// the ends of the sequence) or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueryTile {
    /// Index of the first query in its sequence.
    pub first: usize,
    /// Number of queries.
    pub len: usize,
    /// Position of the first query, in tokens.
    pub position: usize,
}

impl QueryTile {
    /// The tiles of a sequence, in order.
    pub(super) fn of(span: &SequenceSpan, block: usize) -> Vec<Self> {
        let end = span.q_start + span.q_len;
        let mut tiles = Vec::new();
        let mut position = span.q_start;
        while position < end {
            let tile_end = next_boundary(position, block).min(end);
            tiles.push(Self {
                first: position - span.q_start,
                len: tile_end - position,
                position,
            });
            position = tile_end;
        }
        tiles
    }

    /// The query blocks that the tile touches.
    fn blocks(&self, block: usize) -> Range<usize> {
        self.position / block..(self.position + self.len).div_ceil(block)
    }

    /// The lanes that hold queries of the `nth` block of the tile.
    pub(super) fn lanes(&self, nth: usize, block: usize) -> Range<usize> {
        let start = (self.position / block + nth) * block;
        start.saturating_sub(self.position)..(start + block - self.position).min(self.len)
    }
}

/// Tiles end at multiples of as many blocks as fit; a block too large for a tile is cut into equal parts.
fn next_boundary(position: usize, block: usize) -> usize {
    if block <= TILE_QUERIES {
        let step = TILE_QUERIES / block * block;
        (position / step + 1) * step
    } else {
        let step = block.div_ceil(block.div_ceil(TILE_QUERIES));
        let start = position / block * block;
        (start + ((position - start) / step + 1) * step).min(start + block)
    }
}

/// Neighbouring keys that a tile attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyRun {
    /// Index of the first key in its sequence.
    pub key: usize,
    /// Number of keys.
    pub len: usize,
    /// The first lane that attends any of the keys; above 0 on the causal diagonal only.
    pub first_lane: usize,
    /// What not every query of the tile attends; `None` inside the pattern.
    pub mask: Option<EdgeMask>,
}

/// The causal diagonal is cut into steps of this many keys, each with a first lane of its own.
const DIAGONAL_STEP: usize = 16;

/// Which queries attend a run on the edge of the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EdgeMask {
    /// One bit for each query block of the tile, lowest first: the block's row keeps the run.
    pub rows: u64,
    /// Keys after a query are hidden from it.
    pub causal: bool,
}

/// Builds the runs of tile after tile with the same buffers.
#[derive(Debug, Default)]
pub(super) struct RunBuilder {
    kept: Vec<(usize, u64)>,
    runs: Vec<KeyRun>,
}

impl RunBuilder {
    /// The keys that `tile` attends, in ascending order: the union of its rows, with a mask where rows differ and on
    /// the causal diagonal.
    pub(super) fn runs(
        &mut self,
        tile: &QueryTile,
        head: &HeadSchedule,
        span: &SequenceSpan,
        block: usize,
    ) -> &[KeyRun] {
        self.runs.clear();
        if span.kv_len == 0 {
            return &self.runs;
        }
        let kv_end = span.kv_start + span.kv_len;
        let kv_blocks = span.kv_start / block..kv_end.div_ceil(block);
        let rows = tile.blocks(block);
        let all_rows = u64::MAX >> (u64::BITS as usize - rows.len());
        self.collect(rows, head, kv_blocks);

        let causal = head.is_causal();
        // No query of the tile attends a key after the last one, so such keys are not even read.
        let visible_end = if causal {
            kv_end.min(tile.position + tile.len)
        } else {
            kv_end
        };
        for &(key_block, rows) in &self.kept {
            let start = (key_block * block).max(span.kv_start);
            let end = ((key_block + 1) * block).min(visible_end);
            if start >= end {
                continue;
            }
            let diagonal = if causal {
                tile.position.clamp(start, end)
            } else {
                end
            };
            let mask = (rows != all_rows).then_some(EdgeMask {
                rows,
                causal: false,
            });
            push(
                &mut self.runs,
                start - span.kv_start,
                diagonal - start,
                0,
                mask,
            );
            for step in (diagonal..end).step_by(DIAGONAL_STEP) {
                let len = DIAGONAL_STEP.min(end - step);
                let mask = Some(EdgeMask { rows, causal: true });
                push(
                    &mut self.runs,
                    step - span.kv_start,
                    len,
                    step - tile.position,
                    mask,
                );
            }
        }
        &self.runs
    }

    /// Fills `kept` with the key blocks of the union of `rows`, each with the rows that keep it.
    fn collect(&mut self, rows: Range<usize>, head: &HeadSchedule, kv_blocks: Range<usize>) {
        self.kept.clear();
        for (nth, row) in rows.clone().enumerate() {
            let blocks = head.row(row, kv_blocks.clone());
            self.kept
                .extend(blocks.iter().map(|block| (block, 1 << nth)));
        }
        if rows.len() > 1 {
            // The stable sort finds the ascending rows and merges them.
            self.kept.sort_by_key(|(block, _)| *block);
            self.kept.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    earlier.1 |= later.1;
                }
                same
            });
        }
    }
}

/// Adds a run, to the last one where both are inside the pattern.
fn push(runs: &mut Vec<KeyRun>, key: usize, len: usize, first_lane: usize, mask: Option<EdgeMask>) {
    match runs.last_mut() {
        _ if len == 0 => {}
        Some(last) if mask.is_none() && last.mask.is_none() && last.key + last.len == key => {
            last.len += len;
        }
        _ => runs.push(KeyRun {
            key,
            len,
            first_lane,
            mask,
        }),
    }
}
