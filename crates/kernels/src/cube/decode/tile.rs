//! What a cube computes: some rows of queries of a key/value head, over a part of its list.

use cubecl::prelude::*;

use super::sizes::Sizes;
use super::table::{Item, PageList, item_at, page_list};
use crate::cache::MAX_DECODE_TOKENS;
use crate::cube::rows::HeadRows;
use crate::cube::tile::Tile;
use crate::cube::walk::{NONE, div};

/// The rows of an item's key/value head: its tokens, and for each the query heads that share the key/value head.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct GroupRows {
    pub(in crate::cube) item: Item,
    /// Number of the item.
    pub(in crate::cube) number: usize,
    pub(in crate::cube) kv_head: usize,
    /// Query heads of the group.
    pub(in crate::cube) group: u32,
}

/// A row: a token of the item, counted from its first new one, and a query head.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Row {
    pub(in crate::cube) exists: bool,
    pub(in crate::cube) token: i32,
    pub(in crate::cube) head: usize,
}

#[cube]
impl GroupRows {
    /// Tokens that are decoded: there are no records for more.
    pub(in crate::cube) fn tokens(&self) -> i32 {
        min(self.item.len, comptime!(MAX_DECODE_TOKENS as i32))
    }

    pub(in crate::cube) fn count(&self) -> u32 {
        u32::cast_from(self.tokens()) * self.group
    }

    pub(in crate::cube) fn row(&self, row: u32) -> Row {
        Row {
            exists: row < self.count(),
            token: i32::cast_from(row / self.group),
            head: self.kv_head * self.group as usize + (row % self.group) as usize,
        }
    }

    /// The position of a row's query, or [`NONE`].
    pub(in crate::cube) fn position(&self, row: &Row) -> i32 {
        select(
            row.exists,
            self.item.kv_len - self.item.len + row.token,
            NONE,
        )
    }
}

/// The part of a list that a cube visits: entries `first .. end`.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Part {
    pub(in crate::cube) list: PageList,
    pub(in crate::cube) first: i32,
    pub(in crate::cube) end: i32,
}

/// Entries of each part of a list of `count`, where there are `splits`; 0 for an empty one.
#[cube]
pub(in crate::cube) fn part_entries(count: i32, splits: u32) -> i32 {
    let before = u32::cast_from(count) + splits - 1u32;
    i32::cast_from(before / splits)
}

/// What a cube computes. It owns tiles `tile, tile + tiles, ..` of the rows.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Work {
    pub(in crate::cube) rows: GroupRows,
    pub(in crate::cube) part: Part,
    pub(in crate::cube) split: usize,
    pub(in crate::cube) tile: u32,
}

/// The work of this cube. Grid: splits, key/value heads, items, tiles; what is beyond those does work of theirs again.
#[cube]
pub(in crate::cube) fn work(table: &[i32], sizes: &Sizes) -> Work {
    let cube = CUBE_POS as u32;
    let (splits, lists) = (sizes.splits, sizes.kv_heads * sizes.items);
    let split = cube % splits;
    let list = cube / splits % lists;
    let tile = cube / splits / lists;
    let number = (list / sizes.kv_heads) as usize;
    let rows = GroupRows {
        item: item_at(table, number),
        number,
        kv_head: (list % sizes.kv_heads) as usize,
        group: sizes.group,
    };
    let list = page_list(table, list as usize, &sizes.sections);
    let each = part_entries(list.count, splits);
    let first = min(i32::cast_from(split) * each, list.count);
    Work {
        rows,
        part: Part {
            list,
            first,
            end: min(first + each, list.count),
        },
        split: split as usize,
        tile,
    }
}

/// Visits of a part: a tile of its entries each, or a part of one. The last block of a sequence ends with its tokens.
#[cube]
pub(in crate::cube) fn visits(
    part: &Part,
    table: &[i32],
    kv_len: i32,
    #[comptime] visited: Tile,
) -> i32 {
    let entries = part.end - part.first;
    if comptime!(visited.parts() == 1) {
        div(
            entries + comptime!(visited.slots() as i32 - 1),
            visited.slots(),
        )
    } else {
        // Of an empty part any entry is read: nothing waits for a branch.
        let last = part.list.block(table, max(part.end - 1, 0i32));
        let tokens = min(
            max(kv_len - last * comptime!(visited.block as i32), 0i32),
            comptime!(visited.block as i32),
        );
        let visits = (entries - 1) * comptime!(visited.parts() as i32)
            + div(tokens + comptime!(visited.rows as i32 - 1), visited.rows);
        select(entries > 0, visits, 0)
    }
}

/// Where the queries of rows are: in one count over tokens and heads.
#[derive(CubeType, Clone, Copy)]
pub(in crate::cube) struct QueryRows {
    pub(in crate::cube) rows: HeadRows,
    token_step: u32,
    head_step: u32,
}

/// Rows that are `step` vectors apart, those of neighbouring tokens and heads so many of them.
#[cube]
pub(in crate::cube) fn query_rows(token_step: u32, head_step: u32, step: u32) -> QueryRows {
    QueryRows {
        rows: HeadRows {
            base: 0usize.runtime(),
            stride: step as usize,
            start: 0i32.runtime(),
        },
        token_step,
        head_step,
    }
}

#[cube]
impl QueryRows {
    /// The number of a row's query, or [`NONE`].
    pub(in crate::cube) fn token(&self, rows: &GroupRows, row: &Row) -> i32 {
        let token = (rows.item.row + row.token) * i32::cast_from(self.token_step);
        let at = token + i32::cast_from(row.head as u32 * self.head_step);
        select(row.exists, at, NONE)
    }
}
