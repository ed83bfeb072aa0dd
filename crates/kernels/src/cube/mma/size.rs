//! The sizes of cubes.

use super::stage::padded;
use crate::AttentionShape;

/// Units of a plane.
pub(in crate::cube) const PLANE: usize = 32;
/// Rows that a plane owns.
const PLANE_ROWS: usize = 16;
/// Most rows that a cube visits at a time.
pub(in crate::cube) const VISITED: usize = 64;
/// Head dims beyond this take a launch each for dK and dV: a unit has no registers for the sums of both.
pub(in crate::cube) const BOTH_SUMS: usize = 128;

/// Rows that a cube visits at a time where a unit holds `sums` sums of `dim` elements a row: as many as it has registers
/// for.
pub(in crate::cube) fn visited(dim: usize, sums: usize) -> usize {
    if sums * dim <= 128 {
        VISITED
    } else {
        VISITED / 2
    }
}

/// Units of a cube that owns `rows` rows.
pub(in crate::cube) fn units(rows: usize) -> usize {
    rows / PLANE_ROWS * PLANE
}

/// Bytes of shared memory of the hungriest kernel with cubes that own `rows` rows: rows and their gradients, owned and
/// visited, a token for each owned row, and three numbers twice for each visited row.
pub(in crate::cube) fn shared_bytes(rows: usize, shape: &AttentionShape) -> usize {
    let elements = (rows + VISITED) * (padded(shape.head_dim) + padded(shape.value_dim));
    elements * 2 + rows * 4 + VISITED * 24
}
