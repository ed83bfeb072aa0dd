//! Where the parts of a section go: its heading, the heads in a grid, and beside them what they
//! attend together.

use ::svg::node::element::Group;

use super::Drawn;
use super::frame::{AXIS, FOOT, Frame, LABEL};
use super::shared::Shared;
use super::style::{HEADING_SIZE, TEXT_SIZE, text, text_width};
use crate::render::section::{Rasters, Section};

/// About the side of the panel of one head among several, and of a panel alone.
const HEAD_SIDE: f64 = 168.0;
const LONE_SIDE: f64 = 416.0;
/// A cell's side, at least.
const MIN_CELL: f64 = 2.0;
/// Panels in one row, at most.
const MAX_COLUMNS: usize = 8;
/// Between panels.
const GAP: f64 = 14.0;
/// Before the panel of all heads.
const UNION_GAP: f64 = 48.0;
/// From one line of a heading to the next.
const LINE: f64 = 24.0;
/// Headings are not broken below this width.
const MIN_WIDTH: f64 = 720.0;

/// A section; its panel is large where it is `alone`.
pub(super) fn draw(
    section: &Section,
    rasters: &Rasters,
    alone: bool,
    shared: &mut Shared,
) -> Drawn {
    let cells = rasters.scale.cells() as f64;
    let heads = section.panels.len();
    let preferred = if alone { LONE_SIDE } else { HEAD_SIDE };
    let side = cells * (preferred / cells).round().max(MIN_CELL);
    let labels = section.panels.iter().map(|panel| &*panel.label);
    let widest = labels
        .map(|label| text_width(label, TEXT_SIZE))
        .fold(side, f64::max);
    let (pitch, row_pitch) = (widest + GAP, LABEL + side + GAP);
    let columns = columns(heads);
    let rows = heads.div_ceil(columns);
    let heads_end = AXIS + columns as f64 * pitch - GAP;
    // The panel of all heads is as tall as two rows of heads.
    let union_side = if rows > 1 { row_pitch + side } else { side };
    let union_x = if heads == 0 {
        AXIS
    } else {
        heads_end + UNION_GAP
    };
    let width = if section.union.is_some() {
        union_x + union_side
    } else {
        heads_end
    };

    let heading = heading(section, rasters, width);
    let top = heading.height;
    let mut group = heading.group;
    let last_block = section.blocks - 1;
    for (at, (panel, raster)) in section.panels.iter().zip(&rasters.panels).enumerate() {
        let (row, column) = (at / columns, at % columns);
        let frame = Frame {
            label: &panel.label,
            raster,
            corner: [AXIS + column as f64 * pitch, top + row as f64 * row_pitch],
            side,
            left_axis: (column == 0).then_some(last_block),
            lower_axis: (at + columns >= heads).then_some(last_block),
        };
        group = group.add(frame.draw(shared));
    }
    if let (Some(label), Some(raster)) = (&section.union, &rasters.union) {
        let frame = Frame {
            label,
            raster,
            corner: [union_x, top],
            side: union_side,
            left_axis: Some(last_block),
            lower_axis: Some(last_block),
        };
        group = group.add(frame.draw(shared));
    }
    let heads_height = rows as f64 * row_pitch - GAP;
    let union_height = section.union.as_ref().map_or(0.0, |_| LABEL + union_side);
    Drawn {
        group,
        width: width.max(heading.width),
        height: top + heads_height.max(union_height) + FOOT,
    }
}

/// Columns of a grid of `panels` panels about twice as wide as tall, with full rows where there are
/// such.
fn columns(panels: usize) -> usize {
    let wide = ((2 * panels) as f64).sqrt().ceil() as usize;
    let wide = wide.clamp(1, MAX_COLUMNS);
    let narrow = (panels as f64).sqrt().ceil() as usize;
    let full = (narrow..=wide)
        .rev()
        .find(|&columns| columns > 0 && panels.is_multiple_of(columns));
    full.unwrap_or(wide)
}

/// The pattern and its figures.
fn heading(section: &Section, rasters: &Rasters, width: f64) -> Drawn {
    let width = width.max(MIN_WIDTH);
    let mut group = Group::new();
    let (mut y, mut widest) = (0.0, 0.0_f64);
    let note = section.note(rasters.scale);
    for (content, class, size) in [
        (&section.heading, "heading", HEADING_SIZE),
        (&note, "note", TEXT_SIZE),
    ] {
        let characters = (width / text_width("x", size)) as usize;
        for line in textwrap::wrap(content, characters) {
            group = group.add(text(&*line, class, [0.0, y + size]));
            y += LINE;
            widest = widest.max(text_width(&line, size));
        }
    }
    Drawn {
        group,
        width: widest,
        height: y + GAP,
    }
}
