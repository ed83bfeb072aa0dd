//! One panel of an SVG picture.

use svg::node::element::path::Data;
use svg::node::element::{Group, Path, Rectangle};

use super::rectangles::rectangles;
use super::shared::Shared;
use crate::render::cells::{Cell, Kind, LEVELS, Raster};
use crate::render::palette;

/// Panels of more cells have no lines between cells.
const MAX_LINED_CELLS: usize = 64;

/// The class of a cell in the style sheet.
pub(super) fn class(cell: Cell) -> &'static str {
    match cell {
        Cell::Masked => "masked",
        Cell::Dropped => "dropped",
        Cell::EmptyRow => "empty-row",
        Cell::Kept { kind, .. } => match kind {
            Kind::Local => "local",
            Kind::Stride => "stride",
            Kind::Sink => "sink",
            Kind::Dense => "dense",
            Kind::Mask => "mask",
            Kind::Union => "union",
        },
    }
}

/// A square of `side` units with its corner at the origin. Inside, one unit is one cell.
pub(super) fn draw(raster: &Raster, side: f64, shared: &mut Shared) -> Group {
    let size = raster.size;
    let mut panel = Group::new().set("transform", format!("scale({:.4})", side / size as f64));
    let whole = Rectangle::new().set("width", size).set("height", size);
    panel = panel.add(whole.set("class", class(Cell::Masked)));
    // Below what is attended, so that shades lie over one colour and few rectangles are enough.
    let allowed = area(raster, |cell| cell != Cell::Masked).set("class", class(Cell::Dropped));
    panel = panel.add(shared.refer(allowed));
    for cell in distinct(raster) {
        let mut path = area(raster, |other| other == cell).set("class", class(cell));
        if palette::opacity(cell) < 1.0 {
            path = path.set("fill-opacity", format!("{:.2}", palette::opacity(cell)));
        }
        panel = panel.add(path);
    }
    if size <= MAX_LINED_CELLS {
        panel = panel.add(shared.refer(lines(size)));
    }
    panel
}

/// The cells of a raster that are drawn over the background.
fn distinct(raster: &Raster) -> Vec<Cell> {
    let mut cells = vec![Cell::EmptyRow];
    for kind in Kind::ALL {
        cells.extend((1..=LEVELS).map(|level| Cell::Kept { kind, level }));
    }
    cells.retain(|cell| raster.cells().contains(cell));
    cells
}

fn area(raster: &Raster, select: impl Fn(Cell) -> bool) -> Path {
    let mut data = Data::new();
    for rectangle in rectangles(raster, select) {
        data = data
            .move_to((rectangle.column, rectangle.row))
            .horizontal_line_by(rectangle.width)
            .vertical_line_by(rectangle.height)
            .horizontal_line_by(-(rectangle.width as f32))
            .close();
    }
    Path::new().set("d", data)
}

/// Lines between cells.
fn lines(size: usize) -> Path {
    let mut data = Data::new();
    for at in 1..size {
        data = data
            .move_to((at, 0))
            .vertical_line_by(size)
            .move_to((0, at))
            .horizontal_line_by(size);
    }
    Path::new().set("d", data).set("class", "lines")
}
