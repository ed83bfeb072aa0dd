//! Writes new rows to the pages of their blocks.

use cubecl::prelude::*;

use super::UNITS;
use crate::cube::decode::table::{Sections, item_at, page_list};
use crate::cube::vector_tensor::VectorTensor;

/// Copies the row of each new token and key/value head to its place in the page of its block, where the block has one.
///
/// `rows` is `[1, kv_heads, rows, width]`, by its strides; `pages` has `row_vectors` vectors a row. Grid: items, and `chunks` of
/// the vectors of each; what is beyond those does work of theirs again.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn write<E: Float, N: Size>(
    rows: &VectorTensor<E, N>,
    pages: &mut [Vector<E, N>],
    table: &[i32],
    sections: Sections,
    items: u32,
    kv_heads: u32,
    chunks: u32,
    block: u32,
    row_vectors: u32,
    #[define(E)] _dtype: ElemType,
) {
    let cube = CUBE_POS as u32;
    let number = cube % items;
    let item = item_at(table, number as usize);
    let vectors = u32::cast_from(item.len) * kv_heads * row_vectors;
    let last = i32::cast_from(u32::cast_from(max(item.kv_len, 1i32) - 1) / block);
    let mut at = cube / items * comptime!(UNITS as u32) + UNIT_POS;
    while at < vectors {
        let vector = at % row_vectors;
        let kv_head = at / row_vectors % kv_heads;
        let token = at / row_vectors / kv_heads;
        let position = u32::cast_from(item.kv_len - item.len) + token;
        let list = (number * kv_heads + kv_head) as usize;
        let list = page_list(table, list, &sections);
        let page = list.find(table, i32::cast_from(position / block), last);
        if page >= 0 {
            let row = u32::cast_from(item.row) + token;
            let from = row as usize * rows.token + kv_head as usize * rows.head;
            let to = usize::cast_from(page) * block as usize + (position % block) as usize;
            pages[to * row_vectors as usize + vector as usize] =
                rows.vectors[from + vector as usize];
        }
        at += chunks * comptime!(UNITS as u32);
    }
}
