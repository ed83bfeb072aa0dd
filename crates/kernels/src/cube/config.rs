//! What a kernel is compiled for.

use super::tile::Tile;

/// A kernel of the unit engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct UnitConfig {
    /// Rows that a cube owns.
    pub(super) owned: Tile,
    /// Rows that it visits at a time.
    pub(super) visited: Tile,
    /// Elements of a query or key.
    pub(super) head_dim: usize,
    /// Elements of a value.
    pub(super) value_dim: usize,
    /// Forward: whether to keep what `out` loses by rounding.
    pub(super) rounding: bool,
    /// dK and dV: which of them.
    pub(super) keys: bool,
    /// See [`Self::keys`].
    pub(super) values: bool,
}
