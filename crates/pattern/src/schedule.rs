//! What one head attends: the closed form, or a table.

use std::ops::Range;

use crate::bands::Band;
use crate::blocks::Blocks;
use crate::closed_form::dense;
use crate::table::BlockTable;

/// The rows and columns of one head. Heads with the same pattern share one schedule.
///
/// Block indices are absolute. Causality *within* the diagonal block (key position at most query
/// position) is left to the reader where [`is_causal`](Self::is_causal).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeadSchedule {
    causal: bool,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Form {
    Bands(Vec<Band>),
    Table(BlockTable),
}

impl HeadSchedule {
    pub(crate) fn from_bands(causal: bool, bands: Vec<Band>) -> Self {
        Self {
            causal,
            form: Form::Bands(bands),
        }
    }

    pub(crate) fn from_table(causal: bool, table: BlockTable) -> Self {
        Self {
            causal,
            form: Form::Table(table),
        }
    }

    /// The key blocks that query block `i` attends, clipped to `kv_blocks`.
    pub fn row(&self, i: usize, kv_blocks: Range<usize>) -> Blocks<'_> {
        match &self.form {
            Form::Bands(bands) => {
                Blocks::from_pieces(bands.iter().map(|band| band.row(i, &kv_blocks)))
            }
            Form::Table(table) => Blocks::from_table(table.row(i, &kv_blocks)),
        }
    }

    /// The query blocks that attend key block `j`, clipped to `q_blocks`.
    pub fn column(&self, j: usize, q_blocks: Range<usize>) -> Blocks<'_> {
        match &self.form {
            Form::Bands(bands) => {
                Blocks::from_pieces(bands.iter().rev().map(|band| band.column(j, &q_blocks)))
            }
            Form::Table(table) => Blocks::from_table(table.column(j, &q_blocks)),
        }
    }

    /// Whether query block `i` attends key block `j`.
    pub fn keeps(&self, i: usize, j: usize) -> bool {
        match &self.form {
            Form::Bands(bands) => bands.iter().any(|band| band.contains(i, j)),
            Form::Table(table) => !table.row(i, &(j..j + 1)).is_empty(),
        }
    }

    /// Whether a key is attended only at or before the query's position.
    pub fn is_causal(&self) -> bool {
        self.causal
    }

    /// Whether every block is attended that causality allows.
    pub fn is_dense(&self) -> bool {
        matches!(&self.form, Form::Bands(bands) if bands[..] == [dense(self.causal)])
    }

    /// The closed form: disjoint bands, ordered as [`Band`] says. `None` where there is a table.
    pub fn bands(&self) -> Option<&[Band]> {
        match &self.form {
            Form::Bands(bands) => Some(bands),
            Form::Table(_) => None,
        }
    }

    /// The index lists of a custom mask or of a composition without a closed form.
    pub fn table(&self) -> Option<&BlockTable> {
        match &self.form {
            Form::Bands(_) => None,
            Form::Table(table) => Some(table),
        }
    }

    /// Bytes of bands or index lists.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.form {
                Form::Bands(bands) => size_of_val(&bands[..]),
                Form::Table(table) => table.bytes(),
            }
    }
}
