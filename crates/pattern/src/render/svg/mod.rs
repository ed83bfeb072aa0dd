//! SVG documents.

mod frame;
mod layout;
mod legend;
mod panel;
mod rectangles;
mod shared;
mod style;

use ::svg::Document;
use ::svg::node::element::{Group, Rectangle, Style, Title};

use super::cells::Cell;
use super::legend::entries;
use super::section::Section;
use shared::Shared;

/// Cells of a panel's side, at most.
const MAX_CELLS: usize = 128;
/// Around everything.
const MARGIN: f64 = 24.0;

pub(super) fn write(sections: &[Section]) -> String {
    let mut body = Group::new();
    let mut shared = Shared::default();
    let mut cells: Vec<Cell> = Vec::new();
    let (mut width, mut y, mut coarse) = (0.0_f64, MARGIN, false);
    for section in sections {
        let rasters = section.rasters(MAX_CELLS);
        let alone = sections.len() == 1 && rasters.all().count() == 1;
        let drawn = layout::draw(section, &rasters, alone, &mut shared);
        body = body.add(drawn.at(MARGIN, y));
        width = width.max(drawn.width);
        y += drawn.height + MARGIN;
        coarse |= rasters.scale.blocks_per_cell > 1;
        for raster in rasters.all() {
            cells.extend(raster.cells());
        }
        cells.sort_unstable();
        cells.dedup();
    }
    let legend = legend::draw(&entries(&cells, coarse), width);
    body = body.add(legend.at(MARGIN, y));
    let width = (width.max(legend.width) + 2.0 * MARGIN).ceil();
    let height = (y + legend.height + MARGIN).ceil();

    let headings: Vec<&str> = sections.iter().map(|section| &*section.heading).collect();
    let card = Rectangle::new()
        .set("class", "card")
        .set("x", 0.5)
        .set("y", 0.5)
        .set("width", width - 1.0)
        .set("height", height - 1.0)
        .set("rx", 10);
    let document = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("role", "img")
        .set("font-family", style::FONTS)
        .add(Title::new(headings.join("; ")))
        .add(Style::new(style::sheet()))
        .add(shared.definitions())
        .add(card)
        .add(body);
    format!("{document}\n")
}

/// A part of the document, drawn from its own origin.
struct Drawn {
    group: Group,
    width: f64,
    height: f64,
}

impl Drawn {
    fn at(&self, x: f64, y: f64) -> Group {
        let group = self.group.clone();
        group.set("transform", format!("translate({x:.1} {y:.1})"))
    }
}
