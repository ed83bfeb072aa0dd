//! What a tile of tokens is made of: known when a kernel is compiled.

/// A tile of up to `rows` tokens: several whole blocks where blocks are small, a part of one where they are large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Rows of the tile, in tokens.
    pub(super) rows: usize,
    /// Tokens a block.
    pub(super) block: usize,
    /// Whether block lists come from tables in place of arithmetic.
    pub(super) table: bool,
}

impl Tile {
    /// Blocks a tile.
    pub(super) fn slots(&self) -> usize {
        (self.rows / self.block).max(1)
    }

    /// Rows that a block takes in a tile.
    pub(super) fn slot_rows(&self) -> usize {
        self.block.min(self.rows)
    }

    /// Tiles that a block takes.
    pub(super) fn parts(&self) -> usize {
        self.block.div_ceil(self.rows)
    }

    /// Tiles that `blocks` blocks take, from a multiple of `slots` on.
    pub(super) fn count(&self, blocks: usize) -> usize {
        blocks.div_ceil(self.slots()) * self.parts()
    }

    /// The tile where it is not a table that says which blocks it holds.
    pub(super) fn in_order(self) -> Self {
        Self {
            table: false,
            ..self
        }
    }
}
