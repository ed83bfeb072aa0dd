//! The keys of listed pages that a tile attends, chunk by chunk.

use std::ops::Range;

use s2_attention_pattern::Pattern;

use super::decode::Tile;
use super::table::Table;
use super::{CHUNK_KEYS, Real, Stored, TILE_QUERIES};
use crate::cache::PoolShape;

/// A walk over a part of a list. Each stop is a chunk of up to [`CHUNK_KEYS`] keys.
pub(super) struct PageWalk<'a> {
    table: &'a Table<'a>,
    tile: &'a Tile,
    pattern: &'a Pattern,
    runs: Vec<LaneRun>,
    /// Entries to come.
    entries: Range<usize>,
    /// Keys of the first of them that earlier chunks took.
    taken: usize,
    /// The chunk.
    pieces: Vec<Piece>,
}

/// Neighbouring lanes of one head and query block: they attend the same blocks.
struct LaneRun {
    lanes: Range<usize>,
    head: usize,
    query_block: usize,
}

/// Neighbouring keys of a page in a chunk.
struct Piece {
    /// The first score row.
    row: usize,
    page: usize,
    /// The keys, counted in the page.
    keys: Range<usize>,
    /// The position of the first.
    position: usize,
    /// One bit for each run, lowest first: its lanes attend the block.
    kept: u64,
}

impl<'a> PageWalk<'a> {
    /// Before the first chunk. `part` counts the entries of the tile's list.
    pub(super) fn new(
        pattern: &'a Pattern,
        table: &'a Table<'a>,
        tile: &'a Tile,
        part: Range<usize>,
    ) -> Self {
        let mut runs: Vec<LaneRun> = Vec::new();
        for lane in 0..tile.lanes {
            let (head, token) = tile.query(lane);
            let query_block = (tile.item.past() + token) / pattern.block_size();
            match runs.last_mut() {
                Some(run) if (run.head, run.query_block) == (head, query_block) => {
                    run.lanes.end += 1;
                }
                _ => runs.push(LaneRun {
                    lanes: lane..lane + 1,
                    head,
                    query_block,
                }),
            }
        }
        Self {
            table,
            tile,
            pattern,
            runs,
            entries: part,
            taken: 0,
            pieces: Vec::new(),
        }
    }

    /// Goes to the next chunk; false when no keys are left.
    pub(super) fn next(&mut self) -> bool {
        self.pieces.clear();
        let mut row = 0;
        while !self.entries.is_empty() && row < CHUNK_KEYS {
            let nth = self.entries.start;
            let listed = self.table.entry(self.tile.index, self.tile.kv_head, nth);
            let start = listed.block * self.pattern.block_size();
            // No query attends a key after the item's last one: that is not even read.
            let end = (start + self.pattern.block_size()).min(self.tile.item.kv_len);
            let kept = self.kept(listed.block);
            let left = end.saturating_sub(start + self.taken);
            if kept == 0 || left == 0 {
                self.entries.start += 1;
                self.taken = 0;
                continue;
            }
            let len = left.min(CHUNK_KEYS - row);
            self.pieces.push(Piece {
                row,
                page: listed.page,
                keys: self.taken..self.taken + len,
                position: start + self.taken,
                kept,
            });
            row += len;
            self.taken += len;
        }
        row > 0
    }

    fn kept(&self, block: usize) -> u64 {
        let runs = self.runs.iter().enumerate();
        let kept =
            runs.filter(|(_, run)| self.pattern.head(run.head).keeps(run.query_block, block));
        kept.fold(0, |kept, (run, _)| kept | 1 << run)
    }

    /// Keys of the chunk.
    pub(super) fn keys(&self) -> usize {
        self.pieces.iter().map(|piece| piece.keys.len()).sum()
    }

    /// Copies the keys (or values) of the chunk next to each other.
    pub(super) fn gather<F: Real, T: Stored<F>>(
        &self,
        pages: &[T],
        pool: &PoolShape,
        target: &mut [F],
    ) {
        let width = pool.width;
        for piece in &self.pieces {
            let page = &pages[piece.page * pool.page_len()..][..pool.page_len()];
            let source = &page[piece.keys.start * width..piece.keys.end * width];
            for (target, source) in target[piece.row * width..].iter_mut().zip(source) {
                *target = source.widen();
            }
        }
    }

    /// Hides scores that the pattern or causality hides: sets them to `-inf`.
    pub(super) fn mask<F: Real>(&self, scores: &mut [F]) {
        for piece in &self.pieces {
            for (index, run) in self.runs.iter().enumerate() {
                let (first_row, end) = (piece.row, piece.row + piece.keys.len());
                let kept = piece.kept & (1 << index) != 0;
                for row in first_row..end {
                    let key = piece.position + row - first_row;
                    let hidden = if kept {
                        self.before(run, key)
                    } else {
                        run.lanes.clone()
                    };
                    scores[row * TILE_QUERIES..][hidden].fill(F::NEG_INFINITY);
                }
            }
        }
    }

    /// The lanes of a run whose query stands before a key.
    fn before(&self, run: &LaneRun, key: usize) -> Range<usize> {
        let (_, token) = self.tile.query(run.lanes.start);
        let hidden = key.saturating_sub(self.tile.item.past() + token);
        run.lanes.start..(run.lanes.start + hidden).min(run.lanes.end)
    }
}
