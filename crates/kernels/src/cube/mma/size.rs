//! The sizes of cubes.

use super::stage::padded;
use crate::AttentionShape;

/// Units of a plane.
pub(in crate::cube) const PLANE: usize = 32;
/// Rows of a tile that a plane multiplies.
pub(super) const TILE_ROWS: usize = 16;
/// Most rows that a cube visits at a time.
pub(in crate::cube) const VISITED: usize = 64;
/// Head dims beyond this take a launch each for dK and dV: a unit has no registers for the sums of both.
pub(in crate::cube) const BOTH_SUMS: usize = 128;

/// Tiles of 16 rows that a plane owns in a cube of `rows` rows, with sums of `dim` elements a row: two where it has
/// registers for them, so that what is read of visited rows is multiplied twice.
pub(in crate::cube) fn parts(rows: usize, dim: usize) -> usize {
    if rows >= 128 && dim <= 128 { 2 } else { 1 }
}

/// Rows that a forward pass visits at a time.
pub(in crate::cube) fn visited_forward(dim: usize) -> usize {
    if dim <= 128 { VISITED } else { VISITED / 2 }
}

/// Rows that a pass of gradients visits at a time, where a plane has sums of `dim` elements for `parts` tiles.
pub(in crate::cube) fn visited_backward(dim: usize, parts: usize) -> usize {
    if parts * dim <= 128 {
        VISITED
    } else {
        VISITED / 2
    }
}

/// Units of a cube that owns `rows` rows, `parts` tiles a plane.
pub(in crate::cube) fn units(rows: usize, parts: usize) -> usize {
    rows / TILE_ROWS / parts * PLANE
}

/// Bytes of shared memory of the hungriest kernel with cubes that own `rows` rows: those rows, two tiles of visited ones,
/// a token for each owned row, and thrice three numbers for each visited row and one for each plane of them.
pub(in crate::cube) fn shared_bytes(rows: usize, shape: &AttentionShape) -> usize {
    let (keys, values) = (padded(shape.head_dim), padded(shape.value_dim));
    let widest = shape.head_dim.max(shape.value_dim);
    let forward = rows * keys.max(values) + 2 * visited_forward(widest) * (keys + values);
    let dq = visited_backward(shape.head_dim, parts(rows, shape.head_dim));
    let backward = (rows + 2 * dq) * (keys + values);
    forward.max(backward) * 2 + rows * 4 + VISITED * 36 + VISITED / PLANE * 12
}
