//! What a kernel is compiled for.

use super::mma::products::Products;
use super::round::Rounding;
use super::tile::Tile;
use super::unit::size::CubeSize;

/// A kernel of any engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Config {
    /// Rows that a cube owns.
    pub(super) owned: Tile,
    /// Rows that it visits at a time.
    pub(super) visited: Tile,
    /// How units share rows, for the unit engine.
    pub(super) unit: CubeSize,
    /// Elements of a query or key.
    pub(super) head_dim: usize,
    /// Elements of a value.
    pub(super) value_dim: usize,
    /// Forward: whether to keep what `out` loses by rounding.
    pub(super) rounding: bool,
    /// Who rounds results.
    pub(super) results: Rounding,
    /// dK and dV: which of them.
    pub(super) keys: bool,
    /// See [`Self::keys`].
    pub(super) values: bool,
    /// Where dK and dV keep dS for dQ, the bands that the words have which say where; else 0.
    pub(super) kept_bands: usize,
    /// dK and dV: whether several cubes share the first tiles.
    pub(super) splits: bool,
    /// Tiles of 16 rows that a plane of the engine of tensor cores owns.
    pub(super) parts: usize,
    /// How planes of that engine multiply them.
    pub(super) products: Products,
    /// Slots of the ring of visits where four planes multiply together, by instructions of Hopper's GPUs; else 0.
    pub(super) slots: usize,
    /// Whether the type is bf16, where it is not f16.
    pub(super) brain: bool,
    /// Whether the compiler takes instructions of NVIDIA's GPUs: asynchronous copies, approximate powers of 2.
    pub(super) instructions: bool,
}
