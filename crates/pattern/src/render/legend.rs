//! What the cells of a picture mean.

use super::cells::{Cell, Kind, LEVELS};

/// One entry of a legend.
pub(super) struct Entry {
    pub samples: Vec<Cell>,
    pub name: String,
}

/// The entries for these cells. In a `coarse` picture cells stand for several blocks.
pub(super) fn entries(cells: &[Cell], coarse: bool) -> Vec<Entry> {
    let shows = |wanted: Kind| {
        cells
            .iter()
            .any(|cell| matches!(cell, Cell::Kept { kind, .. } if *kind == wanted))
    };
    let level = |kind, level| Cell::Kept { kind, level };
    let shades = |kind| {
        (1..=4)
            .map(|quarter| level(kind, quarter * LEVELS / 4))
            .collect()
    };
    let mut entries = Vec::new();
    let mut enter = |samples: Vec<Cell>, name: &str| {
        entries.push(Entry {
            samples,
            name: name.to_owned(),
        });
    };
    for kind in Kind::ALL.into_iter().filter(|&kind| shows(kind)) {
        let name = match kind {
            Kind::Local => "local window",
            Kind::Stride => "stride",
            Kind::Sink => "sink",
            Kind::Dense => "dense",
            Kind::Mask => "attended",
            Kind::Union => continue,
        };
        enter(vec![level(kind, LEVELS)], name);
    }
    if coarse && let Some(kind) = Kind::ALL[..5].iter().find(|&&kind| shows(kind)) {
        enter(shades(*kind), "few to all blocks of a cell");
    }
    if shows(Kind::Union) {
        enter(shades(Kind::Union), "by few to all heads");
    }
    if cells.contains(&Cell::Dropped) {
        enter(vec![Cell::Dropped], "not attended");
    }
    if cells.contains(&Cell::EmptyRow) {
        enter(vec![Cell::EmptyRow], "row that attends nothing");
    }
    entries
}
