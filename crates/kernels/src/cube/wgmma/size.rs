//! The sizes of cubes.

use super::products::GROUP;
use super::ring::VISIT;
use super::tiles::row_chunks;
use crate::AttentionShape;
use crate::cube::mma::stage::LANES;

/// Rows that a group of four planes owns.
const ROWS: usize = 64;
/// Rows that a cube visits at a time.
pub(in crate::cube) const VISITED: usize = 64;
/// Units that fill the ring, before those that work on visits.
pub(in crate::cube) const FILLERS: usize = GROUP;
/// Most slots of a ring: a group works on two of them.
const SLOTS: usize = 4;

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
        2 if sums > 64 => Some((40, 232)),
        2 => Some((72, 216)),
        _ => Some((56, 152)),
    }
}

/// Bytes of shared memory of a pass that owns `own` and visits `visited` elements a row, with `slots` slots.
pub(in crate::cube) fn shared_bytes(
    rows: usize,
    own: [usize; 2],
    visited: [usize; 2],
    slots: usize,
) -> usize {
    let row = |dims: [usize; 2]| (row_chunks(dims[0]) + row_chunks(dims[1])) * LANES * 2;
    // Tokens, and of visited rows two numbers more and one for 32 of them.
    let numbers = rows * 8 + slots * (VISITED * 12 + VISITED / 32 * 4);
    rows * row(own) + slots * (VISITED * row(visited) + VISIT * 4 + 16) + numbers + 2048
}

/// Slots of the ring of a pass, as many as `most` bytes of shared memory hold; fewer than three are too few.
fn slots(rows: usize, own: [usize; 2], visited: [usize; 2], most: usize) -> Option<usize> {
    (3..=SLOTS)
        .rev()
        .find(|slots| shared_bytes(rows, own, visited, *slots) <= most)
}

/// Slots of the ring of the forward pass, which has place for the tiles that it owns now and next.
pub(in crate::cube) fn forward_slots(
    rows: usize,
    shape: &AttentionShape,
    most: usize,
) -> Option<usize> {
    let (keys, values) = (shape.head_dim, shape.value_dim);
    slots(rows, [keys.max(values); 2], [keys, values], most)
}

/// Slots of the ring of dQ, and of dK and dV.
pub(in crate::cube) fn gradient_slots(
    rows: usize,
    shape: &AttentionShape,
    most: usize,
) -> Option<usize> {
    let dims = [shape.head_dim, shape.value_dim];
    slots(rows, dims, dims, most)
}
