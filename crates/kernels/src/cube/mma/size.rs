//! The sizes of cubes.

use super::products::Products;
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

/// Any pass whose planes multiply in groups of four: their units hold a row each of 16, and have registers for 64 visited rows.
const GROUPED: Pass = Pass {
    parts: 1,
    visited: VISITED,
};

/// The forward pass of cubes that own `rows` rows.
pub(in crate::cube) fn forward_pass(
    rows: usize,
    head_dim: usize,
    value_dim: usize,
    products: Products,
) -> Pass {
    if products == Products::Wgmma {
        return GROUPED;
    }
    let widest = head_dim.max(value_dim);
    Pass {
        parts: parts(rows, value_dim),
        visited: visited(widest <= 128 && products.have_room(widest)),
    }
}

/// dQ of cubes that own `rows` rows.
pub(in crate::cube) fn dq_pass(
    rows: usize,
    head_dim: usize,
    value_dim: usize,
    products: Products,
) -> Pass {
    gradient_pass(rows, head_dim, head_dim.max(value_dim), products)
}

/// dK and dV, those that are wanted, of cubes that own `rows` rows.
pub(in crate::cube) fn key_pass(
    rows: usize,
    head_dim: usize,
    value_dim: usize,
    (keys, values): (bool, bool),
    products: Products,
) -> Pass {
    let sums = usize::from(keys) + usize::from(values);
    let widest = head_dim.max(value_dim);
    gradient_pass(rows, widest * sums, widest, products)
}

/// Whether dK and dV take one launch: else a unit has no registers for the sums of both.
pub(in crate::cube) fn sums_both(head_dim: usize, value_dim: usize) -> bool {
    head_dim.max(value_dim) <= 128
}

/// A pass with sums of `dim` elements a row, of rows of at most `widest` elements.
fn gradient_pass(rows: usize, dim: usize, widest: usize, products: Products) -> Pass {
    if products == Products::Wgmma {
        return GROUPED;
    }
    let parts = parts(rows, dim);
    Pass {
        parts,
        visited: visited(parts * dim <= 128 && products.have_room(widest)),
    }
}

/// Rows that a cube visits at a time: all that it may, or half of them.
fn visited(all: bool) -> usize {
    if all { VISITED } else { VISITED / 2 }
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
pub(in crate::cube) fn shared_bytes(
    rows: usize,
    shape: &AttentionShape,
    products: Products,
) -> usize {
    let (head_dim, value_dim) = (shape.head_dim, shape.value_dim);
    let (keys, values) = (padded(head_dim), padded(value_dim));
    let forward_visited = forward_pass(rows, head_dim, value_dim, products).visited;
    let dq_visited = dq_pass(rows, head_dim, value_dim, products).visited;
    let forward = rows * keys.max(values) + 2 * forward_visited * (keys + values);
    let backward = (rows + 2 * dq_visited) * (keys + values);
    forward.max(backward) * 2
        + rows * 4
        + VISITED * 36
        + VISITED / PLANE * 12
        + if products == Products::Wgmma {
            4 * 1024
        } else {
            0
        }
}
