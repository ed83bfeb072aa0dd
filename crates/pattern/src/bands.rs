//! The closed form: every named head is a few bands of blocks, each one arithmetic piece in a row
//! and in a column.

use std::ops::Range;

use crate::blocks::Piece;

/// What a band's stride is counted along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anchor {
    /// Absolute key blocks: `j mod stride == residue`.
    Column,
    /// Distances: `(i - j) mod stride == residue`.
    Diagonal,
}

/// The blocks `(i, j)` with `i - j` in `min_distance..=max_distance`, `j` in
/// `column_start..column_end`, and `j` (or `i - j`, see [`Anchor`]) congruent to `residue` modulo
/// `stride`.
///
/// `i` is the absolute query block and `j` the absolute key block. [`Band::OPEN_START`] and
/// [`Band::OPEN_END`] mark a bound that is not there. The bands of a head are disjoint and in
/// order: in any row the pieces of later bands lie after those of earlier ones, in any column
/// before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Band {
    /// Smallest `i - j`, negative for keys after the query.
    pub min_distance: i64,
    /// Largest `i - j`.
    pub max_distance: i64,
    /// First key block.
    pub column_start: i64,
    /// End (exclusive) of the key blocks.
    pub column_end: i64,
    /// Stride, at least 1.
    pub stride: i64,
    /// Residue, in `0..stride`.
    pub residue: i64,
    /// What the stride is counted along.
    pub anchor: Anchor,
}

impl Band {
    /// `min_distance` without a bound.
    pub const OPEN_START: i64 = i64::MIN;
    /// `max_distance` or `column_end` without a bound.
    pub const OPEN_END: i64 = i64::MAX;

    /// All blocks at these distances.
    pub(crate) fn all(min_distance: i64, max_distance: i64) -> Self {
        Self {
            min_distance,
            max_distance,
            column_start: 0,
            column_end: Self::OPEN_END,
            stride: 1,
            residue: 0,
            anchor: Anchor::Column,
        }
    }

    /// The blocks of this band with `anchor` congruent to `residue` (any integer) modulo `stride`.
    pub(crate) fn every(self, stride: i64, anchor: Anchor, residue: i64) -> Self {
        Self {
            stride,
            residue: residue.rem_euclid(stride),
            anchor,
            ..self
        }
    }

    /// Whether the band holds `(i, j)`.
    pub fn contains(&self, i: usize, j: usize) -> bool {
        let (i, j) = (i as i64, j as i64);
        let along = match self.anchor {
            Anchor::Column => j,
            Anchor::Diagonal => i - j,
        };
        (self.min_distance..=self.max_distance).contains(&(i - j))
            && (self.column_start..self.column_end).contains(&j)
            && (self.stride == 1 || along.rem_euclid(self.stride) == self.residue)
    }

    /// The key blocks of row `i` within `kv_blocks`.
    pub fn row(&self, i: usize, kv_blocks: &Range<usize>) -> Piece {
        let i = i as i64;
        let first = bound(kv_blocks.start)
            .max(self.column_start)
            .max(i.saturating_sub(self.max_distance));
        let end = bound(kv_blocks.end).min(self.column_end);
        let last = (end - 1).min(i.saturating_sub(self.min_distance));
        match self.anchor {
            Anchor::Column => Piece::within(first, last, self.stride, self.residue),
            Anchor::Diagonal => Piece::within(first, last, self.stride, i - self.residue),
        }
    }

    /// The query blocks of column `j` within `q_blocks`.
    pub fn column(&self, j: usize, q_blocks: &Range<usize>) -> Piece {
        let j = j as i64;
        if !(self.column_start..self.column_end).contains(&j) {
            return Piece::EMPTY;
        }
        let first = bound(q_blocks.start).max(j.saturating_add(self.min_distance));
        let last = (bound(q_blocks.end) - 1).min(j.saturating_add(self.max_distance));
        match self.anchor {
            Anchor::Column if self.stride > 1 && j % self.stride != self.residue => Piece::EMPTY,
            Anchor::Column => Piece::within(first, last, 1, 0),
            Anchor::Diagonal => Piece::within(first, last, self.stride, j + self.residue),
        }
    }

    /// The last query block that attends key block `j`: `None` where there is none,
    /// `Some(OPEN_END)` where there is no last one.
    pub(crate) fn last_row(&self, j: usize) -> Option<i64> {
        let j = j as i64;
        let in_columns = (self.column_start..self.column_end).contains(&j);
        let on_stride =
            self.anchor == Anchor::Diagonal || j.rem_euclid(self.stride) == self.residue;
        if !in_columns || !on_stride {
            return None;
        }
        if self.max_distance == Self::OPEN_END {
            return Some(Self::OPEN_END);
        }
        let distance = match self.anchor {
            Anchor::Column => self.max_distance,
            Anchor::Diagonal => {
                self.max_distance - (self.max_distance - self.residue).rem_euclid(self.stride)
            }
        };
        (distance >= self.min_distance && j + distance >= 0).then_some(j + distance)
    }
}

/// A block index, also from an open-ended range such as `0..usize::MAX`.
fn bound(block: usize) -> i64 {
    i64::try_from(block).unwrap_or(i64::MAX)
}
