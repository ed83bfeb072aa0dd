//! The cells of a panel: each stands for one block pair, or for a square of them where a picture is
//! too small.

use crate::bands::Band;
use crate::schedule::HeadSchedule;

/// Cells of a panel's side, at most.
pub(super) const MAX_CELLS: usize = 256;

/// Steps of shade.
pub(super) const LEVELS: u8 = 8;

/// What keeps a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Local,
    Stride,
    Sink,
    Dense,
    /// A custom mask, or a composition without a closed form.
    Mask,
    /// One head or more of several.
    Union,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] = [
        Kind::Local,
        Kind::Stride,
        Kind::Sink,
        Kind::Dense,
        Kind::Mask,
        Kind::Union,
    ];

    fn of_band(band: &Band) -> Self {
        let bounded = band.min_distance != Band::OPEN_START && band.max_distance != Band::OPEN_END;
        let near = band.min_distance <= 1 && band.max_distance >= -1;
        if band.stride == 1 && bounded && near {
            Kind::Local
        } else if band.stride == 1 && band.column_end != Band::OPEN_END {
            Kind::Sink
        } else {
            Kind::Stride
        }
    }
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Cell {
    /// After the query, where all heads are causal.
    Masked,
    /// Not attended.
    Dropped,
    /// Not attended, in a row that attends nothing.
    EmptyRow,
    /// Attended, by `level` of [`LEVELS`] of the heads and blocks of the cell.
    Kept { kind: Kind, level: u8 },
}

/// The cells of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raster {
    /// Cells of a side.
    pub size: usize,
    cells: Vec<Cell>,
}

impl Raster {
    pub fn at(&self, row: usize, column: usize) -> Cell {
        self.cells[row * self.size + column]
    }

    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }
}

/// How blocks fall into cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    pub blocks: usize,
    /// Blocks of a cell's side; the last cell may have fewer.
    pub blocks_per_cell: usize,
}

impl Scale {
    /// At most `max_cells` cells, 1 or more, for `blocks` blocks.
    pub fn new(blocks: usize, max_cells: usize) -> Self {
        let blocks_per_cell = blocks.div_ceil(max_cells);
        Self {
            blocks,
            blocks_per_cell,
        }
    }

    pub fn cells(self) -> usize {
        self.blocks.div_ceil(self.blocks_per_cell)
    }

    fn span(self, cell: usize) -> std::ops::Range<usize> {
        let start = cell * self.blocks_per_cell;
        start..self.blocks.min(start + self.blocks_per_cell)
    }
}

/// Block pairs of each cell, over one head or several.
pub(super) struct Counts {
    scale: Scale,
    kept: Vec<[u64; Kind::ALL.len()]>,
    possible: Vec<u64>,
    /// Rows (blocks) that attend nothing.
    empty: Vec<bool>,
}

impl Counts {
    /// Of no head.
    pub fn none(scale: Scale) -> Self {
        let cells = scale.cells() * scale.cells();
        Self {
            scale,
            kept: vec![Default::default(); cells],
            possible: vec![0; cells],
            empty: vec![true; scale.blocks],
        }
    }

    pub fn of_schedule(schedule: &HeadSchedule, scale: Scale) -> Self {
        let mut counts = Self::none(scale);
        let kinds: Vec<Kind> = match schedule.bands() {
            Some(_) if schedule.is_dense() => vec![Kind::Dense],
            Some(bands) => bands.iter().map(Kind::of_band).collect(),
            None => Vec::new(),
        };
        let size = scale.cells();
        for i in 0..scale.blocks {
            let row = i / scale.blocks_per_cell * size;
            let mut row_kept = 0;
            for column in 0..size {
                let blocks = scale.span(column);
                let allowed = if schedule.is_causal() {
                    blocks.end.min(i + 1).saturating_sub(blocks.start)
                } else {
                    blocks.len()
                };
                if allowed == 0 {
                    break;
                }
                counts.possible[row + column] += allowed as u64;
                let kept = &mut counts.kept[row + column];
                let mut keep = |kind: Kind, count: usize| {
                    kept[kind as usize] += count as u64;
                    row_kept += count;
                };
                match schedule.bands() {
                    Some(bands) => {
                        for (band, &kind) in bands.iter().zip(&kinds) {
                            keep(kind, band.row(i, &blocks).count);
                        }
                    }
                    None => keep(Kind::Mask, schedule.row(i, blocks).count()),
                }
            }
            counts.empty[i] = row_kept == 0;
        }
        counts
    }

    /// Adds `heads` heads that all attend `other`, as a union.
    pub fn add(&mut self, other: &Counts, heads: usize) {
        for (sum, kept) in self.kept.iter_mut().zip(&other.kept) {
            sum[Kind::Union as usize] += heads as u64 * kept.iter().sum::<u64>();
        }
        for (sum, possible) in self.possible.iter_mut().zip(&other.possible) {
            *sum += heads as u64 * possible;
        }
        for (all, empty) in self.empty.iter_mut().zip(&other.empty) {
            *all &= empty;
        }
    }

    pub fn raster(&self) -> Raster {
        let size = self.scale.cells();
        let empty_rows: Vec<bool> = (0..size)
            .map(|row| self.empty[self.scale.span(row)].contains(&true))
            .collect();
        let cells = self.kept.iter().zip(&self.possible).enumerate();
        let cells = cells.map(|(at, (kept, &possible))| {
            let all: u64 = kept.iter().sum();
            if possible == 0 {
                Cell::Masked
            } else if all > 0 {
                // Of equally frequent kinds the first.
                let kind = Kind::ALL
                    .into_iter()
                    .rev()
                    .max_by_key(|&kind| kept[kind as usize]);
                Cell::Kept {
                    kind: kind.unwrap_or(Kind::Mask),
                    level: (u64::from(LEVELS) * all).div_ceil(possible) as u8,
                }
            } else if empty_rows[at / size] {
                Cell::EmptyRow
            } else {
                Cell::Dropped
            }
        });
        Raster {
            size,
            cells: cells.collect(),
        }
    }
}
