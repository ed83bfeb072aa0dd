//! A head as a table in the index buffer: lists for each tile, and a mask for each pair of blocks.

use s2_attention_pattern::{HeadSchedule, Pattern};

use super::index::{TooManyWords, within};
use super::tile::Tile;

/// Whether the heads of a pattern are walked by tables: where one of them has no closed form, all are.
///
/// A kernel is compiled for one or the other, and heads of both kinds may share a key/value head: named heads then take
/// lists as long as those of a mask, and visit no more blocks than they would.
pub(super) fn takes_tables(pattern: &Pattern) -> bool {
    let mut heads = pattern.schedules().iter();
    heads.any(|head| head.bands().is_none())
}

/// Blocks from position 0 to the last token of any sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockGrid {
    pub(super) queries: usize,
    pub(super) keys: usize,
}

/// Appends the row record of a head as a table: causal, the place of row lists, of column lists and of the mask, and the
/// mask's words a row. Returns its place.
///
/// # Errors
/// [`TooManyWords`] beyond `most`, as soon as it goes there: a table of many blocks does not fit the host either.
pub(super) fn push_table(
    words: &mut Vec<i32>,
    schedule: &HeadSchedule,
    tile: Tile,
    blocks: BlockGrid,
    most: usize,
) -> Result<i32, TooManyWords> {
    let BlockGrid { queries, keys } = blocks;
    check_mask(blocks, most)?;
    let row = |i: usize| -> Vec<usize> { schedule.row(i, 0..keys).iter().collect() };
    let column = |j: usize| -> Vec<usize> { schedule.column(j, 0..queries).iter().collect() };
    let row_lists = push_lists(words, queries, tile, &row, most)?;
    let column_lists = push_lists(words, keys, tile, &column, most)?;
    push_mask(words, schedule, [row_lists, column_lists], blocks, most)
}

/// Words of a row of the mask.
fn mask_row_words(blocks: BlockGrid) -> usize {
    blocks.keys.div_ceil(32)
}

/// The words of a mask.
fn check_mask(blocks: BlockGrid, most: usize) -> Result<usize, TooManyWords> {
    let words = blocks.queries.saturating_mul(mask_row_words(blocks));
    if words > most {
        return Err(TooManyWords(words));
    }
    Ok(words)
}

/// Appends the mask of a head and the row record of a table with `lists`, those of rows and of columns. Returns its place.
///
/// # Errors
/// [`TooManyWords`] beyond `most`.
pub(super) fn push_mask(
    words: &mut Vec<i32>,
    schedule: &HeadSchedule,
    [row_lists, column_lists]: [i32; 2],
    blocks: BlockGrid,
    most: usize,
) -> Result<i32, TooManyWords> {
    let (mask, row_words) = (words.len(), mask_row_words(blocks));
    words.resize(mask + check_mask(blocks, most)?, 0);
    for i in 0..blocks.queries {
        for j in schedule.row(i, 0..blocks.keys).iter() {
            words[mask + i * row_words + j / 32] |= 1 << (j % 32);
        }
    }
    let at = words.len() as i32;
    words.extend([
        i32::from(schedule.is_causal()),
        row_lists,
        column_lists,
        mask as i32,
        row_words as i32,
    ]);
    within(words, most)?;
    Ok(at)
}

/// Appends for each tile of `blocks` blocks the place and the length of a list, then the lists: unions of the members of
/// the tile's blocks. Returns where the first place is.
fn push_lists(
    words: &mut Vec<i32>,
    blocks: usize,
    tile: Tile,
    members: &dyn Fn(usize) -> Vec<usize>,
    most: usize,
) -> Result<i32, TooManyWords> {
    let (at, slots) = (words.len(), tile.slots());
    let tiles = blocks.div_ceil(slots);
    words.resize(at + 2 * tiles, 0);
    for number in 0..tiles {
        let mut list: Vec<usize> = (number * slots..(number + 1) * slots)
            .flat_map(members)
            .collect();
        list.sort_unstable();
        list.dedup();
        let header = [words.len() as i32, list.len() as i32];
        words[at + 2 * number..][..2].copy_from_slice(&header);
        words.extend(list.iter().map(|block| *block as i32));
        within(words, most)?;
    }
    Ok(at as i32)
}
