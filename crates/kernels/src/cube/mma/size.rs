//! The sizes of cubes.

use super::stage::padded;
use crate::AttentionShape;

/// Units of a plane.
pub(in crate::cube) const PLANE: usize = 32;
/// Rows of a tile that a plane multiplies.
pub(super) const TILE_ROWS: usize = 16;
/// Most rows that a cube visits at a time.
pub(in crate::cube) const VISITED: usize = 64;

/// How a pass is laid out.
#[derive(Debug, Clone, Copy)]
pub(in crate::cube) struct Pass {
    /// Tiles of 16 rows that a plane owns.
    pub(in crate::cube) parts: usize,
    /// Rows that a cube visits at a time.
    pub(in crate::cube) visited: usize,
}

/// The forward pass of cubes that own `rows` rows.
pub(in crate::cube) fn forward_pass(rows: usize, head_dim: usize, value_dim: usize) -> Pass {
    Pass {
        parts: parts(rows, value_dim),
        visited: if head_dim.max(value_dim) <= 128 {
            VISITED
        } else {
            VISITED / 2
        },
    }
}

/// dQ of cubes that own `rows` rows.
pub(in crate::cube) fn dq_pass(rows: usize, head_dim: usize) -> Pass {
    gradient_pass(rows, head_dim)
}

/// dK and dV, those that are wanted, of cubes that own `rows` rows.
pub(in crate::cube) fn key_pass(
    rows: usize,
    head_dim: usize,
    value_dim: usize,
    (keys, values): (bool, bool),
) -> Pass {
    let sums = usize::from(keys) + usize::from(values);
    gradient_pass(rows, head_dim.max(value_dim) * sums)
}

/// Whether dK and dV take one launch: else a unit has no registers for the sums of both.
pub(in crate::cube) fn sums_both(head_dim: usize, value_dim: usize) -> bool {
    head_dim.max(value_dim) <= 128
}

/// A pass with sums of `dim` elements a row.
fn gradient_pass(rows: usize, dim: usize) -> Pass {
    let parts = parts(rows, dim);
    let visited = if parts * dim <= 128 {
        VISITED
    } else {
        VISITED / 2
    };
    Pass { parts, visited }
}

/// Tiles of 16 rows that a plane owns, with sums of `dim` elements a row: two where it has registers for them, so that what
/// is read of visited rows is multiplied twice.
fn parts(rows: usize, dim: usize) -> usize {
    if rows >= 128 && dim <= 128 { 2 } else { 1 }
}

/// Units of a cube that owns `rows` rows, `parts` tiles a plane.
pub(in crate::cube) fn units(rows: usize, parts: usize) -> usize {
    rows / TILE_ROWS / parts * PLANE
}

/// Bytes of shared memory of the hungriest kernel with cubes that own `rows` rows: those rows, two tiles of visited ones,
/// a token for each owned row, and thrice three numbers for each visited row and one for each plane of them.
pub(in crate::cube) fn shared_bytes(rows: usize, shape: &AttentionShape) -> usize {
    let (head_dim, value_dim) = (shape.head_dim, shape.value_dim);
    let (keys, values) = (padded(head_dim), padded(value_dim));
    let visited = forward_pass(rows, head_dim, value_dim).visited;
    let forward = rows * keys.max(values) + 2 * visited * (keys + values);
    let visited = dq_pass(rows, head_dim).visited;
    let backward = (rows + 2 * visited) * (keys + values);
    forward.max(backward) * 2 + rows * 4 + VISITED * 36 + VISITED / PLANE * 12
}
