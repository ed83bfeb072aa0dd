//! The packed index buffer: all that the kernels know of pattern and sequences.
//!
//! | section | words |
//! |---|---|
//! | header | number of sequences; place and length of the list of query tiles, and of that of key tiles |
//! | sequences | for each its item, then of queries and keys each `zero, start, end, rows_end`, in tokens |
//! | heads | for each query head the place of its row record |
//! | groups | for each key/value head the place of its column record |
//! | row records | causal, number of bands, bands; or causal and the places of lists and mask of a table |
//! | column records | number of classes, exact, words of a class, classes with their intervals |
//! | tiles | where sequences have different numbers of tiles: sequence and number of each |
//!
//! Named patterns take a handful of words a head whatever the length of the sequences; tables their lists. Of a sequence,
//! `zero` is the position that row 0 of the tensors would have, below 0 for most packed documents; `rows_end` is where the rows
//! end that are its own, which are padding from `end` on.

use std::collections::HashMap;
use std::ops::Range;

use s2_attention_pattern::{Anchor, Band, HeadSchedule, Pattern};

use super::columns::{ColumnClass, ColumnClasses, FAR, Members, reachable};
use super::place::Places;
use super::table::{BlockGrid, push_table};
use super::tile::Tile;
use crate::{AttentionProblem, Sequence};

/// Words of the header.
pub(super) const HEADER_WORDS: usize = 5;
/// Place of the list of query tiles in the header, its length behind it.
pub(super) const QUERY_TILES: usize = 1;
/// Place of the list of key tiles in the header, its length behind it.
pub(super) const KEY_TILES: usize = 3;
/// Words of a sequence.
pub(super) const SEQUENCE_WORDS: usize = 9;
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
    /// The key tiles of a head, in the order in which cubes take them.
    pub(super) key_places: Places,
}

/// More words than there may be: as many as were packed by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyWords(pub(super) usize);

/// Refuses more than `most` words.
pub(super) fn within(words: &[i32], most: usize) -> Result<(), TooManyWords> {
    match words.len() {
        len if len > most => Err(TooManyWords(len)),
        _ => Ok(()),
    }
}

/// The grids that words are packed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Query tiles of a head, of all sequences.
    pub(super) rows: usize,
    /// Key tiles of a key/value head, of all sequences.
    pub(super) columns: usize,
}

impl Index {
    /// Packs `problem` for tiles of queries and keys.
    ///
    /// With `tile.table`, every head is packed as a table.
    ///
    /// # Errors
    /// [`TooManyWords`] beyond `most`, which places of 32 bits with a sign reach.
    pub(super) fn new(
        problem: &AttentionProblem,
        tile: Tile,
        most: usize,
    ) -> Result<Self, TooManyWords> {
        let (pattern, shape) = (problem.pattern(), problem.shape());
        let sequences = problem.sequences();
        let mut words = vec![0; HEADER_WORDS];
        words[0] = sequences.len() as i32;
        words.extend(sequences.iter().flat_map(sequence_words));
        let heads_at = words.len();
        let groups_at = heads_at + shape.num_heads;
        words.resize(groups_at + shape.num_kv_heads, 0);

        // Nothing is visited by or in a sequence without tokens: it may stand beyond a mask.
        let visiting = || {
            let spans = sequences.iter().map(|sequence| sequence.span);
            spans.filter(|span| span.q_len > 0 && span.kv_len > 0)
        };
        let blocks = BlockGrid {
            queries: last_block(visiting().map(|s| s.q_start + s.q_len), tile.block),
            keys: last_block(visiting().map(|s| s.kv_start + s.kv_len), tile.block),
        };
        push_heads(&mut words, heads_at, pattern, most, |words, schedule| {
            if tile.table {
                push_table(words, schedule, tile, blocks, most)
            } else {
                Ok(push_bands(words, schedule))
            }
        })?;

        let row_tiles: Vec<usize> = sequences
            .iter()
            .map(|s| tile.tiles(query_rows(s)))
            .collect();
        let mut column_tiles = vec![0; sequences.len()];
        if tile.table {
            for (most, sequence) in column_tiles.iter_mut().zip(sequences) {
                *most = tile.tiles(key_rows(sequence));
            }
        } else {
            let mut groups: HashMap<Vec<usize>, i32> = HashMap::new();
            for kv_head in 0..shape.num_kv_heads {
                let at = *groups
                    .entry(group_schedules(pattern, kv_head))
                    .or_insert_with(|| {
                        let classes = ColumnClasses::new(pattern, kv_head);
                        for (most, sequence) in column_tiles.iter_mut().zip(sequences) {
                            *most = classes.tiles(tile, &key_rows(sequence)).max(*most);
                        }
                        push_classes(&mut words, &classes)
                    });
                words[groups_at + kv_head] = at;
                within(&words, most)?;
            }
        }
        let places = [
            (QUERY_TILES, Places::new(&row_tiles)),
            (KEY_TILES, Places::new(&column_tiles)),
        ];
        for (header, places) in &places {
            words[*header] = places.push(&mut words);
            words[header + 1] = places.len() as i32;
            within(&words, most)?;
        }
        let [(_, rows), (_, key_places)] = places;
        Ok(Self {
            words,
            tiles: Tiles {
                rows: rows.len(),
                columns: key_places.len(),
            },
            key_places,
        })
    }
}

/// Appends a row record for each head by `push`, one for heads that are alike, and sets the words from `heads_at` on to their
/// places.
///
/// # Errors
/// [`TooManyWords`] beyond `most`.
pub(super) fn push_heads(
    words: &mut Vec<i32>,
    heads_at: usize,
    pattern: &Pattern,
    most: usize,
    mut push: impl FnMut(&mut Vec<i32>, &HeadSchedule) -> Result<i32, TooManyWords>,
) -> Result<(), TooManyWords> {
    let mut records: HashMap<usize, i32> = HashMap::new();
    for head in 0..pattern.num_heads() {
        let number = pattern.schedule_index(head);
        let at = match records.get(&number) {
            Some(at) => *at,
            None => push(words, pattern.head(head))?,
        };
        records.insert(number, at);
        words[heads_at + head] = at;
        within(words, most)?;
    }
    Ok(())
}

/// The positions of a sequence's rows of queries and padding.
pub(super) fn query_rows(sequence: &Sequence) -> Range<usize> {
    sequence.span.q_start..sequence.span.q_start + sequence.q_rows
}

/// The positions of a sequence's rows of keys and padding.
pub(super) fn key_rows(sequence: &Sequence) -> Range<usize> {
    sequence.span.kv_start..sequence.span.kv_start + sequence.kv_rows
}

impl ColumnClasses {
    /// Tiles of all classes that hold the keys `tokens`.
    fn tiles(&self, tile: Tile, tokens: &Range<usize>) -> usize {
        let classes = 0..self.classes.len();
        classes
            .map(|class| self.class_tiles(class, tile, tokens).len())
            .sum()
    }

    /// The members of each tile of a class that holds keys of `tokens`.
    pub(super) fn class_tiles(
        &self,
        class: usize,
        tile: Tile,
        tokens: &Range<usize>,
    ) -> impl ExactSizeIterator<Item = Range<usize>> {
        let before = |column: usize| self.members_before(class, column as i64) as usize;
        let has = |column: usize| usize::from(before(column + 1) > before(column));
        let (mut from, mut end, mut parts) = (0, 0, 0..0);
        if !tokens.is_empty() {
            let (first, last) = (tokens.start / tile.block, (tokens.end - 1) / tile.block);
            from = before(first) / tile.slots() * tile.slots();
            end = before(last + 1);
            // Of a large block at an end of the keys, parts that hold none are nobody's.
            let skipped = tokens.start % tile.block / tile.rows;
            let cut = tile.parts() - 1 - (tokens.end - 1) % tile.block / tile.rows;
            let whole = (end - from).div_ceil(tile.slots()) * tile.parts();
            parts = has(first) * skipped..whole - has(last) * cut;
        }
        parts.map(move |part| {
            let member = from + part / tile.parts() * tile.slots();
            member..(member + tile.slots()).min(end)
        })
    }

    /// The column of a member of a class.
    pub(super) fn column(&self, class: usize, member: i64) -> i64 {
        match self.classes[class].members {
            Members::Arithmetic { first, stride, .. } => first + member * stride,
            Members::Others { stride } => {
                let others = stride - class as i64;
                let mut residue = member % others;
                // Residues in order, each one that is not ours moves us one on.
                for earlier in &self.classes[..class] {
                    if let Members::Arithmetic { first, .. } = earlier.members
                        && residue >= first
                    {
                        residue += 1;
                    }
                }
                member / others * stride + residue
            }
        }
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

fn last_block(ends: impl Iterator<Item = usize>, block: usize) -> usize {
    ends.max().unwrap_or(0).div_ceil(block)
}

fn sequence_words(sequence: &Sequence) -> [i32; SEQUENCE_WORDS] {
    let side = |row: usize, rows: usize, start: usize, len: usize| {
        // Positions and rows are checked to be far below what 32 bits hold.
        let zero = start as i64 - row as i64;
        [
            zero,
            start as i64,
            (start + len) as i64,
            (start + rows) as i64,
        ]
        .map(|token| token as i32)
    };
    let Sequence { item, span, .. } = *sequence;
    let q = side(sequence.q_row, sequence.q_rows, span.q_start, span.q_len);
    let kv = side(
        sequence.kv_row,
        sequence.kv_rows,
        span.kv_start,
        span.kv_len,
    );
    let [q0, q1, q2, q3] = q;
    let [kv0, kv1, kv2, kv3] = kv;
    [item as i32, q0, q1, q2, q3, kv0, kv1, kv2, kv3]
}

pub(super) fn group_schedules(pattern: &Pattern, kv_head: usize) -> Vec<usize> {
    let group = pattern.group_size();
    (kv_head * group..(kv_head + 1) * group)
        .map(|head| pattern.schedule_index(head))
        .collect()
}

pub(super) fn clip(value: i64) -> i32 {
    value.clamp(-FAR, FAR) as i32
}

/// Appends a row record and returns its place.
pub(super) fn push_bands(words: &mut Vec<i32>, schedule: &HeadSchedule) -> i32 {
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

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
