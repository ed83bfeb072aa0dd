//! dS, which dK and dV compute and keep for dQ: where its chunks are.
//!
//! dQ visits keys, and each of its visits has a place for the dS of 64 keys and all queries of the tile. A place is made of chunks of 16 x
//! 16 pairs, each as the units of the plane hold it that computes it: 16 bytes a unit. Chunks of a group of queries follow one another,
//! among them those of 16 keys. What no query attends is kept by nobody: such a chunk may hold anything.

use cubecl::prelude::*;

use super::ring::{Ring, Turn};
use super::size::{ROWS, TURN_FILLERS, VISITED};
use crate::cube::index::{BAND_WORDS, ROW_WORDS};
use crate::cube::kept::CHUNK;
use crate::cube::mma::fragments::Pair;
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, KeyTile, NONE, Span, TokenRows, div};

/// Says that a chunk is kept nowhere.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Chunks along the queries, and along the keys, of a visit.
pub(super) const ACROSS: usize = VISITED / CHUNK;

/// Chunks of a visit of `rows` rows.
pub(super) const fn chunks_of_visit(rows: usize) -> usize {
    rows / CHUNK * ACROSS
}

/// Where the words of [`Kept`](crate::cube::kept::Kept) speak of tile `number` of a sequence, counted from its first: of each of `bands`
/// bands two words. `before` is what they say of the sequence. There are `tiles` tiles a head.
#[cube]
fn words_at(
    sequences: usize,
    before: u32,
    tiles: u32,
    head: usize,
    number: i32,
    #[comptime] bands: usize,
) -> usize {
    let tile = head * tiles as usize + (before + u32::cast_from(number)) as usize;
    sequences + tile * comptime!(2 * bands)
}

/// The first visit of dQ by the tile that holds the query at `position`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn first_visit(
    starts: &[u32],
    index: &[i32],
    sequence: usize,
    tiles: u32,
    head: usize,
    span: &Span,
    position: i32,
    #[comptime] bands: usize,
    #[comptime] tile: Tile,
) -> u32 {
    let number = div(position, tile.rows) - div(span.q_start, tile.rows);
    let (sequences, before) = (usize::cast_from(index[0]), starts[sequence]);
    starts[words_at(sequences, before, tiles, head, number, bands)]
}

/// What a unit that fills needs to say where the dS of its chunk are kept: some of them have a chunk of every visit each.
#[derive(CubeType)]
pub(super) struct Keeping {
    /// The unit, counted in its plane.
    unit: u32,
    sequences: usize,
    /// Tiles of earlier sequences.
    before: u32,
    /// Tiles of queries of a head.
    tiles: u32,
    /// Visits before those that are kept.
    first: u32,
    /// Position of the first key of the chunk, or [`NONE`].
    key: i32,
    /// The query head that this was last asked for, and the place of its row record.
    head: i32,
    record: usize,
    /// Of each band of that head, the number of the key's block among its columns, or [`NONE`].
    columns: Array<i32>,
    /// Bands that the words have of each tile; 0 where dS is not kept.
    #[cube(comptime)]
    pub(super) bands: usize,
}

/// Of the units that fill for the keys `own`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn keeping(
    own: &KeyTile,
    index: &[i32],
    starts: &[u32],
    sequence: usize,
    span: &Span,
    tiles: u32,
    first: u32,
    #[comptime] bands: usize,
    #[comptime] tile: Tile,
) -> Keeping {
    let unit = UNIT_POS % 32u32;
    let (mut key, mut before) = (NONE.runtime(), 0u32.runtime());
    if comptime!(bands > 0).runtime() && has_chunk(tile) {
        before = starts[sequence];
        let row = unit / comptime!(ACROSS as u32) * comptime!(CHUNK as u32);
        let position = own.position(index, row, tile);
        // Some of them must be there.
        if position + comptime!(CHUNK as i32) > span.kv_start && position < span.kv_end {
            key = position;
        }
    }
    let mut columns = Array::<i32>::new(bands);
    #[unroll]
    for band in 0..bands {
        columns[band] = NONE.runtime();
    }
    Keeping {
        unit,
        sequences: usize::cast_from(index[0]),
        before,
        tiles,
        first,
        key,
        head: NONE.runtime(),
        record: 0usize.runtime(),
        columns,
        bands,
    }
}

/// Whether this unit has a chunk: of each set that fills by turns, units of the second plane.
#[cube]
fn has_chunk(#[comptime] tile: Tile) -> bool {
    let of_set = UNIT_POS % comptime!(TURN_FILLERS as u32);
    of_set >= 32u32 && of_set < comptime!((32 + chunks_of_visit(tile.rows)) as u32)
}

/// Place of a band of a row record.
#[cube]
fn band_at(record: usize, #[comptime] band: usize) -> usize {
    record + comptime!(ROW_WORDS + band * BAND_WORDS)
}

#[cube]
impl Keeping {
    /// Looks up which columns of each band of a head the key is in.
    fn look_up(&mut self, index: &[i32], head: i32, record: usize, #[comptime] visited: Tile) {
        self.head = head;
        self.record = record;
        let block = div(max(self.key, 0i32), visited.block);
        #[unroll]
        for band in 0..self.bands {
            let mut column = NONE.runtime();
            if self.key != NONE && comptime!(band as i32) < index[record + 1] {
                let at = band_at(record, band);
                let from = block - index[at + 5];
                let number = from / index[at + 4];
                if block >= index[at + 2]
                    && block < index[at + 3]
                    && from >= 0
                    && number * index[at + 4] == from
                {
                    column = number;
                }
            }
            self.columns[band] = column;
        }
    }

    /// The chunk of this unit's keys and the queries of a visit, at these distances, of query head `head`, which has its record at
    /// `index[record_at]`; [`NOWHERE`] where its block holds no pair that the visit attends.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn chunk(
        &mut self,
        starts: &[u32],
        index: &[i32],
        head: usize,
        record_at: usize,
        rows: &TokenRows,
        distances: &Distances,
        span: &Span,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) -> u32 {
        let mut chunk = NOWHERE.runtime();
        if has_chunk(tile) {
            if self.head != head as i32 {
                let record = usize::cast_from(index[record_at]);
                self.look_up(index, head as i32, record, visited);
            }
            let step = self.unit % comptime!(ACROSS as u32);
            let query = rows.position(index, step * comptime!(CHUNK as u32), visited);
            // Some of them must be there.
            let there = query != NONE
                && query + comptime!(CHUNK as i32) > span.q_start
                && query < span.q_end;
            // What is looked up of any other is left out.
            let query = select(there, query, span.q_start);
            let number = div(query, tile.rows) - div(span.q_start, tile.rows);
            let words = words_at(
                self.sequences,
                self.before,
                self.tiles,
                head,
                number,
                self.bands,
            );
            let distance = div(query, visited.block) - div(max(self.key, 0i32), visited.block);
            // Of a large block, the part that has the key.
            let part = div(
                max(self.key, 0i32) % comptime!(visited.block as i32),
                visited.rows,
            );
            let mut place = NONE.runtime();
            let mut start = 0u32.runtime();
            #[unroll]
            for band in 0..self.bands {
                let at = band_at(self.record, band);
                // All are looked up before one is looked at, so that they are waited for together.
                let (of_band, first) = (
                    starts[words + comptime!(2 * band)],
                    i32::cast_from(starts[words + comptime!(2 * band + 1)]),
                );
                let (nearest, furthest) = (index[at], index[at + 1]);
                let is_known = u32::cast_from(self.columns[band] != NONE)
                    & u32::cast_from(distance >= nearest)
                    & u32::cast_from(distance <= furthest);
                let holds = is_known != 0u32;
                let column = self.columns[band] * comptime!(visited.parts() as i32) + part - first;
                place = select(holds, column, place);
                start = select(holds, of_band, start);
            }
            // Blocks may be visited for each of several intervals, of which one holds their distance: it alone has their dS.
            let of_visit = distance >= distances.min && distance <= distances.max;
            if there && of_visit && place != NONE {
                chunk = self.chunk_of(start, place, u32::cast_from(query), tile, visited);
            }
        }
        chunk
    }

    /// The chunk of the queries from position `query` on and of this unit's keys, whose block, or part of one, is number `place` of those
    /// that are visited from visit `start` on.
    fn chunk_of(
        &self,
        start: u32,
        place: i32,
        query: u32,
        #[comptime] tile: Tile,
        #[comptime] visited: Tile,
    ) -> u32 {
        let (block, slots) = comptime!((visited.block as u32, visited.slots() as u32));
        let (few, rows) = comptime!((CHUNK as u32, visited.rows as u32));
        let (place, within) = (u32::cast_from(place), u32::cast_from(self.key) % block);
        let of_list = place / slots;
        let row = within % rows + place % slots * block % rows;
        let group = query % comptime!(tile.rows as u32) / comptime!(ROWS as u32);
        let of_group =
            (start - self.first + of_list) * comptime!((tile.rows / ROWS) as u32) + group;
        (of_group * comptime!(ACROSS as u32) + row / few) * comptime!((ROWS / CHUNK) as u32)
            + query % comptime!(ROWS as u32) / few
    }

    /// Sets this unit's word of a slot to its chunk.
    pub(super) fn put(&self, ring: &mut Ring, turn: &Turn, chunk: u32, #[comptime] tile: Tile) {
        if has_chunk(tile) {
            ring.put_more(turn, self.unit as usize, chunk);
        }
    }
}

/// Where the dS of this unit's plane are kept, of a visit, of each 16 queries: nowhere unless it `keeps` them.
#[cube]
pub(super) fn kept_chunks(
    ring: &Ring,
    turn: &Turn,
    unit: usize,
    #[comptime] keeps: bool,
) -> Array<u32> {
    let mut chunks = Array::<u32>::new(comptime!(if keeps { ACROSS } else { 0 }));
    if comptime!(keeps) {
        #[unroll]
        for step in 0..ACROSS {
            chunks[step] = ring.more(turn, unit / 32usize * ACROSS + step);
        }
    }
    chunks
}

/// Keeps the dS of this unit: those of a visit, rounded, as left operands of products, where there is a place for them.
#[cube]
pub(super) fn keep<E: Float>(
    kept: &mut [Vector<u32, Const<4>>],
    d_scores: &Array<Pair<E>>,
    chunks: &Array<u32>,
    unit: usize,
) {
    #[unroll]
    for step in 0..ACROSS {
        let chunk = chunks[step];
        if chunk != NOWHERE {
            let mut words = Vector::<u32, Const<4>>::empty();
            #[unroll]
            for r in 0..4usize {
                words.insert(r, u32::reinterpret(d_scores[comptime!(4 * step + r)]));
            }
            kept[chunk as usize * 32usize + unit % 32usize] = words;
        }
    }
}
