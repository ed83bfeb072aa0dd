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

/// The forward pass of cubes that own `rows` rows.
pub(in crate::cube) fn forward_pass(
    rows: usize,
    head_dim: usize,
    value_dim: usize,
    products: Products,
) -> Pass {
    let widest = head_dim.max(value_dim);
    Pass {
        parts: parts(rows, value_dim, products),
        visited: visited(widest <= 128, products),
    }
}

/// dQ of cubes that own `rows` rows.
pub(in crate::cube) fn dq_pass(rows: usize, head_dim: usize, products: Products) -> Pass {
    gradient_pass(rows, head_dim, products)
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
    gradient_pass(rows, head_dim.max(value_dim) * sums, products)
}

/// Whether dK and dV take one launch: else a unit has no registers for the sums of both. AMD's have 256, with the operands of
/// larger products.
pub(in crate::cube) fn sums_both(head_dim: usize, value_dim: usize, products: Products) -> bool {
    let most = if products == Products::Wmma { 64 } else { 128 };
    head_dim.max(value_dim) <= most
}

/// A pass with sums of `dim` elements a row.
fn gradient_pass(rows: usize, dim: usize, products: Products) -> Pass {
    let parts = parts(rows, dim, products);
    Pass {
        parts,
        visited: visited(parts * dim <= 128, products),
    }
}

/// Rows that a cube visits at a time: as many as it may, where units have registers for their sums, or half of them. AMD's
/// cubes have shared memory for half of them, two slots of which are within 64 KiB.
fn visited(all: bool, products: Products) -> usize {
    if all && products != Products::Wmma {
        VISITED
    } else {
        VISITED / 2
    }
}

/// Tiles of 16 rows that a plane owns, with sums of `dim` elements a row: two where it has registers for them, so that what
/// is read of visited rows is multiplied twice.
fn parts(rows: usize, dim: usize, products: Products) -> usize {
    let most = if products == Products::Wmma { 64 } else { 128 };
    if rows >= 128 && dim <= most { 2 } else { 1 }
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
    let dq_visited = dq_pass(rows, head_dim, products).visited;
    let forward = rows * keys.max(values) + 2 * forward_visited * (keys + values);
    let backward = (rows + 2 * dq_visited) * (keys + values);
    forward.max(backward) * 2 + rows * 4 + VISITED * 36 + VISITED / PLANE * 12
}
