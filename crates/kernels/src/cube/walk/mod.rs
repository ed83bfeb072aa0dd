//! The schedule on the device: which blocks a tile visits, and which pairs of tokens attend, from the index buffer.

mod distances;
mod keys;
mod lists;
mod queries;
mod reach;

pub(super) use distances::{Distances, attends_block};
pub(super) use keys::{KeyTile, key_tile};
pub(super) use lists::{NONE, Span, TokenRows, div, heads_at, span};
pub(super) use queries::{QueryTile, RowWalk, Visits, no_visits, query_tile};
pub(super) use reach::{
    Reach, all_attend, key_reach, key_rows_reach, none_attend, query_reach, query_rows_reach,
    rows_reach,
};
