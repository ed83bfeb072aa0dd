//! Colours and names of what a picture shows.

use super::cells::{Cell, Kind, LEVELS};

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Colours for one kind of background.
pub(super) struct Palette {
    pub card: Rgb,
    pub border: Rgb,
    pub ink: Rgb,
    pub faint_ink: Rgb,
    masked: Rgb,
    dropped: Rgb,
    empty_row: Rgb,
    /// In the order of [`Kind::ALL`].
    kinds: [Rgb; Kind::ALL.len()],
}

pub(super) const LIGHT: Palette = Palette {
    card: hex(0xffffff),
    border: hex(0xd1d9e0),
    ink: hex(0x1f2328),
    faint_ink: hex(0x59636e),
    masked: hex(0xf6f8fa),
    dropped: hex(0xe2e7ed),
    empty_row: hex(0xf7b4ae),
    kinds: [
        hex(0x2f6fde),
        hex(0xf28c1c),
        hex(0x12a37c),
        hex(0x8b5cf6),
        hex(0x0891b2),
        hex(0x0f766e),
    ],
};

pub(super) const DARK: Palette = Palette {
    card: hex(0x0d1117),
    border: hex(0x30363d),
    ink: hex(0xf0f6fc),
    faint_ink: hex(0x9198a1),
    masked: hex(0x12171e),
    dropped: hex(0x262d38),
    empty_row: hex(0x7d2f35),
    kinds: [
        hex(0x5b94f5),
        hex(0xffb04d),
        hex(0x3ecf9b),
        hex(0xb18cff),
        hex(0x4cc9e6),
        hex(0x2dd4bf),
    ],
};

const fn hex(rgb: u32) -> Rgb {
    [(rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8]
}

impl Palette {
    pub fn kind(&self, kind: Kind) -> Rgb {
        self.kinds[kind as usize]
    }

    /// The colour of a cell at full opacity.
    pub fn cell(&self, cell: Cell) -> Rgb {
        match cell {
            Cell::Masked => self.masked,
            Cell::Dropped => self.dropped,
            Cell::EmptyRow => self.empty_row,
            Cell::Kept { kind, .. } => self.kind(kind),
        }
    }

    /// The colour of a cell, shaded over that of a dropped one.
    pub fn shaded(&self, cell: Cell) -> Rgb {
        let (over, under, opacity) = (self.cell(cell), self.dropped, opacity(cell));
        std::array::from_fn(|at| {
            let (over, under) = (f64::from(over[at]), f64::from(under[at]));
            (opacity * over + (1.0 - opacity) * under).round() as u8
        })
    }
}

/// How opaque a cell is drawn.
pub(super) fn opacity(cell: Cell) -> f64 {
    match cell {
        Cell::Kept { level, .. } => 0.22 + 0.78 * f64::from(level) / f64::from(LEVELS),
        Cell::Masked | Cell::Dropped | Cell::EmptyRow => 1.0,
    }
}
