//! The sizes of cubes.

use super::kept::chunks_of_visit;
use super::own::OWN;
use super::products::GROUP;
use super::ring::VISIT;
use super::tiles::row_chunks;
use crate::AttentionShape;
use crate::cube::mma::stage::LANES;

/// Rows that a group of four planes owns.
pub(super) const ROWS: usize = 64;
/// Rows that a cube visits at a time.
pub(in crate::cube) const VISITED: usize = 64;
/// Units that fill the ring, before those that work on visits.
pub(in crate::cube) const FILLERS: usize = GROUP;
/// Those that fill a slot with queries, by turns with as many others: while the ones wait for what they look up, the others copy.
pub(in crate::cube) const TURN_FILLERS: usize = FILLERS / 2;
/// Most slots of a ring. Groups work on two of them, the fastest and the slowest not on the same, and one is filled for as long as
/// memory takes to answer: three slots are waited for.
const SLOTS: usize = 8;
/// Most where cubes leave memory for others.
const SHARED_SLOTS: usize = 4;

/// Units that work on visits, in a cube that owns `rows` rows.
pub(super) const fn consumers(rows: usize) -> usize {
    rows / ROWS * GROUP
}

/// Units of a cube that owns `rows` rows.
pub(in crate::cube) const fn units(rows: usize) -> usize {
    FILLERS + consumers(rows)
}

/// Registers of units that fill the ring, and of those that work on it, with `sums` sums each: all that a processor has. Cubes
/// of one group have enough without.
pub(super) fn registers(rows: usize, sums: usize) -> Option<(usize, usize)> {
    match rows / ROWS {
        1 => None,
        2 if sums > 96 => Some((56, 224)),
        2 => Some((72, 216)),
        _ => Some((56, 152)),
    }
}

/// Most elements of a query that units hold.
pub(super) const MOST_HELD: usize = 128;

/// Whether units hold the queries that they own, of as many elements as `dims` has first: products then read shared memory for keys alone. Three groups
/// have no registers for wide ones, nor two beside wide values or with what rounding loses.
pub(super) fn holds_queries(rows: usize, [dim, value_dim]: [usize; 2], rounding: bool) -> bool {
    dim <= 64 || (rows <= 2 * ROWS && dim <= MOST_HELD && value_dim <= NARROW && !rounding)
}

/// Whether units have registers for the weights of two visits beside the scores of one, with `dim` values a row.
pub(super) fn weights_have_names(rows: usize, dim: usize, rounding: bool) -> bool {
    (rows <= 2 * ROWS || dim <= 64) && dim <= NARROW && !rounding
}

/// Bytes of a row of keys and one of values, as tiles hold them.
fn row_bytes(dims: [usize; 2]) -> usize {
    (row_chunks(dims[0]) + row_chunks(dims[1])) * LANES * 2
}

/// Widest rows of which a cube has memory for two tiles of queries, and for three slots that keys and values share.
const NARROW: usize = 128;

/// Whether queries or values are wider than that.
pub(in crate::cube) fn is_wide(dims: [usize; 2]) -> bool {
    dims[0].max(dims[1]) > NARROW
}

/// Tiles of queries that a cube of the forward pass has, where queries and values have `dims` elements: the one at hand, and where
/// there is memory the next.
pub(super) fn own_slots(dims: [usize; 2]) -> usize {
    if is_wide(dims) { 1 } else { 2 }
}

/// Parts of a slot of its ring. Where there is memory for two slots, keys and values are waited for and freed each on their own: a slot
/// of keys is free for the time of a visit before it is needed, and one of values for longer.
pub(super) fn parts(dims: [usize; 2]) -> usize {
    if is_wide(dims) { 2 } else { 1 }
}

/// Bytes of a ring: words, and two barriers a part, a slot.
const fn ring_bytes(slots: usize, parts: usize, words: usize) -> usize {
    slots * (words * 4 + 16 * parts)
}

/// What arrays that begin at multiples of 16 bytes may lose between them; tiles, which come first, lose nothing.
const GAPS: usize = 128;

/// Bytes of shared memory of the forward pass, by cubes that own `rows` rows, with `slots` slots: one more than these takes a
/// sixth of it, so they are counted to the byte.
pub(in crate::cube) fn forward_bytes(rows: usize, shape: &AttentionShape, slots: usize) -> usize {
    let (keys, values) = (shape.head_dim, shape.value_dim);
    let dims = [keys, values];
    let (own_slots, parts) = (own_slots(dims), parts(dims));
    let own = own_slots * rows * (row_chunks(keys.max(values)) * LANES * 2 + 4);
    let visited = slots * VISITED * (row_bytes(dims) + 4);
    let rings = ring_bytes(own_slots, 1, OWN) + ring_bytes(slots, parts, VISIT);
    own + visited + rings + GAPS
}

/// As [`forward_bytes`], of dQ, and of dK and dV.
pub(in crate::cube) fn gradient_bytes(rows: usize, shape: &AttentionShape, slots: usize) -> usize {
    let row = row_bytes([shape.head_dim, shape.value_dim]);
    // Tokens, and of visited rows two numbers more and one for 32 of them.
    let visited = slots * (VISITED * (row + 12) + VISITED / 32 * 4);
    let words = VISIT + chunks_of_visit(rows);
    rows * (row + 8) + visited + ring_bytes(slots, 1, words) + GAPS
}

/// As [`forward_bytes`], of dQ where dS is kept: keys, their tokens, and dS.
pub(in crate::cube) fn kept_bytes(rows: usize, shape: &AttentionShape, slots: usize) -> usize {
    let visit = VISITED * (row_chunks(shape.head_dim) * LANES * 2 + 4) + rows * VISITED * 2;
    rows * 4 + slots * visit + ring_bytes(slots, 1, VISIT) + GAPS
}

/// Slots of the ring of the forward pass, as many as `most` bytes of shared memory hold; fewer than three are
/// too few, or than two of wide rows.
pub(in crate::cube) fn forward_slots(
    rows: usize,
    shape: &AttentionShape,
    most: usize,
) -> Option<usize> {
    slots(shape, SLOTS, |slots| {
        forward_bytes(rows, shape, slots) <= most
    })
}

/// Slots of the ring of dQ, and of dK and dV.
pub(in crate::cube) fn gradient_slots(
    rows: usize,
    shape: &AttentionShape,
    most: usize,
) -> Option<usize> {
    // Two cubes of one group may share a processor.
    let at_most = if rows == ROWS { SHARED_SLOTS } else { SLOTS };
    slots(shape, at_most, |slots| {
        gradient_bytes(rows, shape, slots) <= most
    })
}

/// Slots of the ring of dQ where dS is kept: as many as groups at least, whose results are put there.
pub(in crate::cube) fn kept_slots(
    rows: usize,
    shape: &AttentionShape,
    most: usize,
) -> Option<usize> {
    (3..=SLOTS)
        .rev()
        .find(|slots| kept_bytes(rows, shape, *slots) <= most)
}

fn slots(shape: &AttentionShape, at_most: usize, fit: impl Fn(usize) -> bool) -> Option<usize> {
    let least = if is_wide([shape.head_dim, shape.value_dim]) {
        2
    } else {
        3
    };
    (least..=at_most).rev().find(|slots| fit(*slots))
}
