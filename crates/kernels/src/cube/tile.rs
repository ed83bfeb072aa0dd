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

    /// Whether whole blocks, or even parts of one, fill the rows of a tile.
    pub(super) fn is_even(&self) -> bool {
        self.rows.is_multiple_of(self.block) || self.block.is_multiple_of(self.rows)
    }

    /// Whether tiles of queries run across the ends of blocks, so that all of their rows are used. Lists of tables are those of
    /// whole blocks.
    pub(super) fn runs(&self) -> bool {
        !(self.is_even() || self.table)
    }

    /// Tiles of queries that hold the tokens of a range.
    pub(super) fn query_tiles(&self, tokens: Range<usize>) -> usize {
        if self.runs() && !tokens.is_empty() {
            (tokens.end - 1) / self.rows + 1 - tokens.start / self.rows
        } else {
            self.tiles(tokens)
        }
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
    use std::collections::HashSet;

    use super::Tile;

    /// Every token of a range is in one of the tiles counted, whose rows run on where blocks and tiles do not fit.
    #[test]
    fn tiles_of_queries_are_those_that_hold_tokens() {
        for (rows, block, runs) in [
            (192, 128, true),
            (192, 64, false),
            (192, 384, false),
            (64, 48, true),
            (64, 100, true),
            (64, 1, false),
        ] {
            let tile = Tile {
                rows,
                block,
                table: false,
            };
            assert_eq!(tile.runs(), runs, "{rows} of {block}");
            let of_table = Tile {
                table: true,
                ..tile
            };
            for (start, end) in [(0, 1), (0, 192), (0, 193), (191, 193), (130, 1000), (7, 7)] {
                let whole = of_table.query_tiles(start..end);
                let expected = if runs && start < end {
                    (start..end)
                        .map(|token| token / rows)
                        .collect::<HashSet<_>>()
                        .len()
                } else {
                    whole
                };
                assert_eq!(tile.query_tiles(start..end), expected, "{rows} of {block}");
            }
        }
    }

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
