//! What test kernels of the schedule know of the keys that a cube owns.

use cubecl::prelude::*;

use crate::cube::index::KEY_TILES;
use crate::cube::mma::keys::Group;
use crate::cube::place::place;
use crate::cube::tile::Tile;
use crate::cube::walk::{KeyTile, Span, heads_at, key_tile, span};

/// A tile of keys, and the query heads that visit it.
#[derive(CubeType)]
pub(super) struct OwnKeys {
    pub(super) own: KeyTile,
    pub(super) sequence: usize,
    pub(super) span: Span,
    /// Without stats.
    pub(super) group: Group,
    pub(super) kv_head: usize,
    pub(super) first_head: usize,
}

/// Tile `number` of a grid over all key/value heads.
#[cube]
pub(super) fn own_keys(
    index: &[i32],
    number: u32,
    heads: u32,
    kv_heads: u32,
    #[comptime] tile: Tile,
) -> OwnKeys {
    let kv_head = (number % kv_heads) as usize;
    let place = place(index, number / kv_heads, KEY_TILES);
    let span = span(index, place.sequence);
    let heads_at = heads_at(index);
    let groups_at = heads_at + heads as usize;
    let own = key_tile(index, groups_at, kv_head, place.number, &span, tile);
    let first_head = kv_head * (heads / kv_heads) as usize;
    OwnKeys {
        own,
        sequence: place.sequence,
        span,
        group: Group {
            heads: (heads / kv_heads) as i32,
            records: heads_at + first_head,
            stats: 0usize.runtime(),
            head_rows: 0usize.runtime(),
            all_rows: 0usize.runtime(),
        },
        kv_head,
        first_head,
    }
}
