//! The blocks of one row or column.

use smallvec::SmallVec;

/// The blocks `start, start + step, ...`, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// First block.
    pub start: usize,
    /// Distance from one block to the next, at least 1.
    pub step: usize,
    /// Blocks.
    pub count: usize,
}

impl Piece {
    pub(crate) const EMPTY: Piece = Piece {
        start: 0,
        step: 1,
        count: 0,
    };

    /// The numbers of `first..=last` that are congruent to `to` modulo `step`; `first` is not
    /// negative.
    pub(crate) fn within(first: i64, last: i64, step: i64, to: i64) -> Self {
        if step == 1 {
            let count = (last - first + 1).max(0) as usize;
            return Piece {
                start: first as usize,
                step: 1,
                count,
            };
        }
        let start = first + (to - first).rem_euclid(step);
        let count = if start > last {
            0
        } else {
            (last - start) / step + 1
        };
        Piece {
            start: start as usize,
            step: step as usize,
            count: count as usize,
        }
    }

    /// The blocks, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = usize> + use<> {
        let Piece { start, step, count } = *self;
        (0..count).map(move |t| start + t * step)
    }
}

/// The attended blocks of one row (key blocks) or one column (query blocks), ascending.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    form: Form<'a>,
    count: usize,
}

#[derive(Clone, Debug)]
enum Form<'a> {
    Pieces(SmallVec<[Piece; 4]>),
    Table(&'a [u32]),
}

impl<'a> Blocks<'a> {
    /// From pieces in ascending order; empty ones are left out.
    pub(crate) fn from_pieces(pieces: impl Iterator<Item = Piece>) -> Self {
        let pieces: SmallVec<[Piece; 4]> = pieces.filter(|piece| piece.count > 0).collect();
        let count = pieces.iter().map(|piece| piece.count).sum();
        Self {
            form: Form::Pieces(pieces),
            count,
        }
    }

    /// From an ascending list.
    pub(crate) fn from_table(list: &'a [u32]) -> Self {
        Self {
            form: Form::Table(list),
            count: list.len(),
        }
    }

    /// How many blocks there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The `t`-th block.
    ///
    /// # Panics
    /// If `t` is not below [`count`](Self::count).
    pub fn nth(&self, t: usize) -> usize {
        match &self.form {
            Form::Pieces(pieces) => {
                let mut left = t;
                for piece in pieces {
                    if left < piece.count {
                        return piece.start + left * piece.step;
                    }
                    left -= piece.count;
                }
                panic!("block {t} of {} was asked for", self.count)
            }
            Form::Table(list) => list[t] as usize,
        }
    }

    /// The blocks, ascending.
    pub fn iter(&self) -> BlockIter<'_> {
        match &self.form {
            Form::Pieces(pieces) => BlockIter {
                pieces,
                table: &[],
                taken: 0,
            },
            Form::Table(list) => BlockIter {
                pieces: &[],
                table: list,
                taken: 0,
            },
        }
    }

    /// The non-empty arithmetic pieces, ascending and without overlap; `None` for a table.
    pub fn pieces(&self) -> Option<&[Piece]> {
        match &self.form {
            Form::Pieces(pieces) => Some(pieces),
            Form::Table(_) => None,
        }
    }
}

impl<'b> IntoIterator for &'b Blocks<'_> {
    type Item = usize;
    type IntoIter = BlockIter<'b>;

    fn into_iter(self) -> BlockIter<'b> {
        self.iter()
    }
}

/// The blocks of [`Blocks::iter`].
#[derive(Clone, Debug)]
pub struct BlockIter<'b> {
    pieces: &'b [Piece],
    table: &'b [u32],
    /// Blocks taken from the first piece.
    taken: usize,
}

impl Iterator for BlockIter<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if let Some((first, rest)) = self.pieces.split_first() {
            let block = first.start + self.taken * first.step;
            self.taken += 1;
            if self.taken == first.count {
                (self.pieces, self.taken) = (rest, 0);
            }
            return Some(block);
        }
        let (&first, rest) = self.table.split_first()?;
        self.table = rest;
        Some(first as usize)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pieces: usize = self.pieces.iter().map(|piece| piece.count).sum();
        let left = pieces - self.taken + self.table.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for BlockIter<'_> {}
