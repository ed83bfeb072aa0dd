//! Lays the keys or values of an item one after another: the old ones from their pages, then the new ones.

use cubecl::prelude::*;

use super::UNITS;
use crate::cube::decode::table::{Sections, item_at, page_list};
use crate::cube::vector_tensor::VectorTensor;

/// Copies the pages of an item's lists, as far as tokens are old, and its new rows to `out [1, kv_heads, kv_len, width]`, by its
/// strides. Tokens of blocks without a page are left as they are.
///
/// `rows` is `[1, kv_heads, rows, width]`, by its strides; `pages` has `row_vectors` vectors a row. There are `blocks` blocks of
/// `block` tokens up to the last. Grid: a unit for each vector of every block of every key/value head, and of every new row.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn read<E: Float, N: Size>(
    pages: &[Vector<E, N>],
    rows: &VectorTensor<E, N>,
    out: &mut VectorTensor<E, N>,
    table: &[i32],
    sections: Sections,
    number: u32,
    kv_heads: u32,
    blocks: u32,
    block: u32,
    row_vectors: u32,
    #[define(E)] _dtype: ElemType,
) {
    let item = item_at(table, number as usize);
    let old = item.kv_len - item.len;
    let of_pages = kv_heads * blocks * block * row_vectors;
    let at = CUBE_POS as u32 * comptime!(UNITS as u32) + UNIT_POS;
    let vector = (at % row_vectors) as usize;
    if at < of_pages {
        let row = at / row_vectors;
        let (within, entry) = (row % block, i32::cast_from(row / block % blocks));
        let kv_head = row / block / blocks;
        let list = (number * kv_heads + kv_head) as usize;
        let list = page_list(table, list, &sections);
        if entry < list.count {
            let position = u32::cast_from(list.block(table, entry)) * block + within;
            if i32::cast_from(position) < old {
                let from = usize::cast_from(list.page(table, entry)) * block as usize;
                let from = (from + within as usize) * row_vectors as usize;
                let to = position as usize * out.token + kv_head as usize * out.head;
                out.vectors[to + vector] = pages[from + vector];
            }
        }
    } else {
        let row = (at - of_pages) / row_vectors;
        let (kv_head, token) = (row % kv_heads, i32::cast_from(row / kv_heads));
        if token < item.len {
            let from =
                usize::cast_from(item.row + token) * rows.token + kv_head as usize * rows.head;
            let to = usize::cast_from(old + token) * out.token + kv_head as usize * out.head;
            out.vectors[to + vector] = rows.vectors[from + vector];
        }
    }
}
