//! What a tile of tokens is made of: known when a kernel is compiled.

use std::ops::Range;

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

    /// Tiles that hold the tokens of a range: from a multiple of `slots` blocks on, and of large blocks only the parts in the
    /// range.
    pub(super) fn tiles(&self, tokens: Range<usize>) -> usize {
        if tokens.is_empty() {
            return 0;
        }
        let tile = |token: usize| {
            token / self.block / self.slots() * self.parts() + token % self.block / self.rows
        };
        tile(tokens.end - 1) + 1 - tile(tokens.start)
    }

    /// The tile where it is not a table that says which blocks it holds.
    pub(super) fn in_order(self) -> Self {
        Self {
            table: false,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tile;

    /// Each tile is counted that holds a token of the range, and those between them.
    #[test]
    fn tiles_are_those_that_hold_tokens() {
        for block in [1, 5, 16, 64, 100, 128, 1 << 20] {
            let tile = Tile {
                rows: 64,
                block,
                table: false,
            };
            for (start, len) in [
                (0, 1),
                (0, 128),
                (3, 200),
                (63, 2),
                (1000, 77),
                (1 << 20, 65),
            ] {
                let place = |token: usize| {
                    let group = token / block / tile.slots();
                    (group, token % block / tile.rows)
                };
                let mut places: Vec<_> = (start..start + len).map(place).collect();
                places.dedup();
                assert_eq!(
                    tile.tiles(start..start + len),
                    places.len(),
                    "{block} {start} {len}"
                );
            }
        }
    }
}
