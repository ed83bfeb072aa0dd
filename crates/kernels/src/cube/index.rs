//! The packed index buffer: all that the kernels know of pattern and positions.
//!
//! | section | words |
//! |---|---|
//! | spans | for each sequence `q_start, q_end, kv_start, kv_end`, in tokens |
//! | heads | for each query head the place of its row record |
//! | groups | for each key/value head the place of its column record |
//! | row records | causal, number of bands, bands; or causal and the places of lists and mask of a table |
//! | column records | number of classes, exact, words of a class, classes with their intervals |
//!
//! Named patterns take a handful of words a head whatever the length of the sequences; tables their lists.

use std::collections::HashMap;
use std::ops::Range;

use s2_attention_pattern::{Anchor, Band, HeadSchedule, Pattern};

use super::columns::{ColumnClass, ColumnClasses, FAR, Members, reachable};
use super::tile::Tile;
use crate::{AttentionProblem, SequenceSpan};

/// Words of a sequence's span.
pub(super) const SPAN_WORDS: usize = 4;
/// Words of a band: min_distance, max_distance, column_start, column_end, stride, residue, diagonal.
pub(super) const BAND_WORDS: usize = 7;
/// Words of a class before its intervals: kind, first, stride, end.
pub(super) const CLASS_WORDS: usize = 4;
/// Words of a row record before its bands.
pub(super) const ROW_WORDS: usize = 2;
/// Words of a column record before its classes.
pub(super) const COLUMN_WORDS: usize = 4;
/// `kind` of [`Members::Arithmetic`].
pub(super) const ARITHMETIC: i32 = 0;
/// `kind` of [`Members::Others`].
pub(super) const OTHERS: i32 = 1;

/// The words, and the grids that they were packed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) words: Vec<i32>,
    pub(super) tiles: Tiles,
}

/// The grids that words are packed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Most query tiles of a sequence and head.
    pub(super) rows: usize,
    /// Most key tiles of a sequence and head.
    pub(super) columns: usize,
}

impl Index {
    /// Packs `problem` for tiles of queries and keys.
    ///
    /// With `tile.table`, every head is packed as a table.
    pub(super) fn new(problem: &AttentionProblem, tile: Tile) -> Self {
        let (pattern, shape) = (problem.pattern(), problem.shape());
        let spans = problem.spans();
        let mut words: Vec<i32> = spans.iter().flat_map(span_words).collect();
        let heads_at = words.len();
        let groups_at = heads_at + shape.num_heads;
        words.resize(groups_at + shape.num_kv_heads, 0);

        let q_blocks = last_block(spans.iter().map(|s| s.q_start + s.q_len), tile.block);
        let kv_blocks = last_block(spans.iter().map(|s| s.kv_start + s.kv_len), tile.block);
        let mut rows: HashMap<usize, i32> = HashMap::new();
        for head in 0..shape.num_heads {
            let schedule = pattern.head(head);
            let at = *rows.entry(pattern.schedule_index(head)).or_insert_with(|| {
                if tile.table {
                    push_table(&mut words, schedule, tile, q_blocks, kv_blocks)
                } else {
                    push_bands(&mut words, schedule)
                }
            });
            words[heads_at + head] = at;
        }

        let row_tiles = spans
            .iter()
            .map(|span| tile.tiles(span.q_start..span.q_start + shape.seq_q))
            .max()
            .unwrap_or(0);
        let kv_ranges = spans
            .iter()
            .map(|span| span.kv_start..span.kv_start + shape.seq_kv);
        let mut column_tiles = kv_ranges
            .clone()
            .map(|kv| tile.tiles(kv))
            .max()
            .unwrap_or(0);
        if !tile.table {
            column_tiles = 0;
            let mut groups: HashMap<Vec<usize>, (i32, usize)> = HashMap::new();
            for kv_head in 0..shape.num_kv_heads {
                let (at, tiles) = *groups
                    .entry(group_schedules(pattern, kv_head))
                    .or_insert_with(|| {
                        let classes = ColumnClasses::new(pattern, kv_head);
                        let tiles = kv_ranges.clone().map(|kv| classes.tiles(tile, &kv));
                        let tiles = tiles.max().unwrap_or(0);
                        (push_classes(&mut words, &classes), tiles)
                    });
                words[groups_at + kv_head] = at;
                column_tiles = column_tiles.max(tiles);
            }
        }
        Self {
            words,
            tiles: Tiles {
                rows: row_tiles,
                columns: column_tiles,
            },
        }
    }
}

impl Tile {
    /// Tiles that hold `tokens`, from a multiple of [`Tile::slots`] blocks on.
    fn tiles(&self, tokens: Range<usize>) -> usize {
        let first = tokens.start / self.block / self.slots() * self.slots();
        self.count(tokens.end.div_ceil(self.block) - first)
    }
}

impl ColumnClasses {
    /// Tiles of all classes that hold the keys `tokens`.
    fn tiles(&self, tile: Tile, tokens: &Range<usize>) -> usize {
        let first = (tokens.start / tile.block) as i64;
        let end = tokens.end.div_ceil(tile.block) as i64;
        let tiles = (0..self.classes.len()).map(|index| {
            let before = |column| self.members_before(index, column);
            let from = class_tile_start(before(first), tile);
            tile.count((before(end) - from).max(0) as usize)
        });
        tiles.sum()
    }

    /// Members of a class below `column`.
    fn members_before(&self, class: usize, column: i64) -> i64 {
        match self.classes[class].members {
            Members::Arithmetic { first, stride, end } => {
                (column.min(end) - first + stride - 1).max(0) / stride
            }
            Members::Others { stride } => {
                let taken = self.classes[..class]
                    .iter()
                    .map(|earlier| match earlier.members {
                        Members::Arithmetic { first, .. } => {
                            (column - first + stride - 1).max(0) / stride
                        }
                        Members::Others { .. } => 0,
                    });
                column - taken.sum::<i64>()
            }
        }
    }
}

fn class_tile_start(member: i64, tile: Tile) -> i64 {
    let slots = tile.slots() as i64;
    member / slots * slots
}

fn last_block(ends: impl Iterator<Item = usize>, block: usize) -> usize {
    ends.max().unwrap_or(0).div_ceil(block)
}

fn span_words(span: &SequenceSpan) -> [i32; SPAN_WORDS] {
    [
        span.q_start,
        span.q_start + span.q_len,
        span.kv_start,
        span.kv_start + span.kv_len,
    ]
    .map(|token| token as i32)
}

fn group_schedules(pattern: &Pattern, kv_head: usize) -> Vec<usize> {
    let group = pattern.group_size();
    (kv_head * group..(kv_head + 1) * group)
        .map(|head| pattern.schedule_index(head))
        .collect()
}

fn clip(value: i64) -> i32 {
    value.clamp(-FAR, FAR) as i32
}

/// Appends a row record and returns its place.
fn push_bands(words: &mut Vec<i32>, schedule: &HeadSchedule) -> i32 {
    let at = words.len() as i32;
    let bands = reachable(schedule.bands().unwrap_or_default());
    words.extend([i32::from(schedule.is_causal()), bands.len() as i32]);
    words.extend(bands.iter().flat_map(band_words));
    at
}

fn band_words(band: &Band) -> [i32; BAND_WORDS] {
    let diagonal = band.anchor == Anchor::Diagonal && band.stride > 1;
    [
        clip(band.min_distance),
        clip(band.max_distance),
        clip(band.column_start),
        clip(band.column_end),
        clip(band.stride),
        clip(band.residue),
        i32::from(diagonal),
    ]
}

/// Appends a column record and returns its place.
fn push_classes(words: &mut Vec<i32>, classes: &ColumnClasses) -> i32 {
    let at = words.len() as i32;
    let most = |class: &ColumnClass| class.intervals.iter().map(Vec::len).max().unwrap_or(0);
    let most = classes.classes.iter().map(most).max().unwrap_or(0);
    let heads = classes
        .classes
        .first()
        .map_or(0, |class| class.intervals.len());
    let head_words = 1 + 2 * most;
    words.extend([
        classes.classes.len() as i32,
        i32::from(classes.exact),
        (CLASS_WORDS + heads * head_words) as i32,
        head_words as i32,
    ]);
    for class in &classes.classes {
        words.extend(match class.members {
            Members::Arithmetic { first, stride, end } => {
                [ARITHMETIC, clip(first), clip(stride), clip(end)]
            }
            Members::Others { stride } => [OTHERS, 0, clip(stride), clip(FAR)],
        });
        for intervals in &class.intervals {
            words.push(intervals.len() as i32);
            let bounds = intervals
                .iter()
                .flat_map(|(min, max)| [clip(*min), clip(*max)]);
            words.extend(bounds.chain(std::iter::repeat(0)).take(head_words - 1));
        }
    }
    at
}

/// Appends the row record of a head as a table: causal, the place of row lists, of column lists and of the mask, the
/// mask's words a row and its rows. A list is its place and its length; the lists are unions over the blocks of a tile.
fn push_table(
    words: &mut Vec<i32>,
    schedule: &HeadSchedule,
    tile: Tile,
    q_blocks: usize,
    kv_blocks: usize,
) -> i32 {
    let slots = tile.slots();
    let union = |tiles: usize, members: &dyn Fn(usize) -> Vec<usize>| -> Vec<Vec<usize>> {
        let of_tile = |tile: usize| {
            let mut blocks: Vec<usize> = (tile * slots..(tile + 1) * slots)
                .flat_map(members)
                .collect();
            blocks.sort_unstable();
            blocks.dedup();
            blocks
        };
        (0..tiles).map(of_tile).collect()
    };
    let rows = union(q_blocks.div_ceil(slots), &|i| {
        schedule.row(i, 0..kv_blocks).iter().collect()
    });
    let columns = union(kv_blocks.div_ceil(slots), &|j| {
        schedule.column(j, 0..q_blocks).iter().collect()
    });
    let row_lists = push_lists(words, &rows);
    let column_lists = push_lists(words, &columns);

    let mask = words.len();
    let mask_row_words = kv_blocks.div_ceil(32);
    words.resize(mask + q_blocks * mask_row_words, 0);
    for i in 0..q_blocks {
        for j in schedule.row(i, 0..kv_blocks).iter() {
            words[mask + i * mask_row_words + j / 32] |= 1 << (j % 32);
        }
    }
    let at = words.len() as i32;
    words.extend([
        i32::from(schedule.is_causal()),
        row_lists,
        column_lists,
        mask as i32,
        mask_row_words as i32,
    ]);
    at
}

/// Appends the places and lengths of lists, then the lists; returns where the first begins.
fn push_lists(words: &mut Vec<i32>, lists: &[Vec<usize>]) -> i32 {
    let at = words.len();
    let mut next = at + 2 * lists.len();
    for list in lists {
        words.extend([next as i32, list.len() as i32]);
        next += list.len();
    }
    words.extend(lists.iter().flatten().map(|block| *block as i32));
    at as i32
}
