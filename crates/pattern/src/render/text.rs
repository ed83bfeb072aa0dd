//! Pictures for a terminal.

use std::fmt::Write;

use anstyle::{Color, RgbColor, Style};

use super::cells::{Cell, Kind, LEVELS, Raster, Scale};
use super::legend::{Entry, entries};
use super::palette::DARK;
use super::section::{Rasters, Section};

/// Colours that a terminal shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TextColor {
    /// None: characters tell what keeps a block.
    #[default]
    None,
    /// The 256 colours that terminals have in common.
    Ansi256,
    /// 24-bit colours.
    TrueColor,
}

const AXES: &str = "rows: query blocks; columns: key blocks";

/// Narrower terminals break lines themselves.
const MIN_WIDTH: usize = 40;

/// Characters between two panels.
const GAP: usize = 2;

/// Characters between two entries of the legend.
const LEGEND_GAP: usize = 3;

/// Rows between two row numbers, and columns between two column numbers, at least.
const ROWS_PER_NUMBER: usize = 4;
const COLUMNS_PER_NUMBER: usize = 8;

pub(super) fn write(sections: &[Section], width: usize, color: TextColor) -> String {
    let width = width.max(MIN_WIDTH);
    let mut lines: Vec<String> = Vec::new();
    let mut cells: Vec<Cell> = Vec::new();
    let mut coarse = false;
    for section in sections {
        let numbers = (section.blocks - 1).to_string().len() + 1;
        let rasters = section.rasters(width.saturating_sub(numbers));
        let note = section.note(rasters.scale);
        for said in [&section.heading, &note, AXES] {
            lines.extend(textwrap::wrap(said, width).into_iter().map(Into::into));
        }
        lines.push(String::new());
        lines.extend(panels(section, &rasters, numbers, width, color));
        coarse |= rasters.scale.blocks_per_cell > 1;
        for raster in rasters.all() {
            cells.extend(raster.cells());
        }
        cells.sort_unstable();
        cells.dedup();
    }
    lines.extend(legend(&entries(&cells, coarse), coarse, width, color));
    let lines = lines.iter().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// All panels of a section, as many side by side as fit.
fn panels(
    section: &Section,
    rasters: &Rasters,
    numbers: usize,
    width: usize,
    color: TextColor,
) -> Vec<String> {
    let labels = section.panels.iter().map(|panel| panel.label.as_str());
    let labels: Vec<&str> = labels.chain(section.union.as_deref()).collect();
    let rasters_of: Vec<&Raster> = rasters.all().collect();
    let size = rasters.scale.cells();
    let coarse = rasters.scale.blocks_per_cell > 1;
    // In whole characters; a label that is too long takes a wider panel.
    let panel_width = labels
        .iter()
        .map(|label| label.len())
        .max()
        .unwrap_or(0)
        .max(size);
    let columns = ((width + GAP).saturating_sub(numbers) / (panel_width + GAP)).max(1);

    let mut lines = Vec::new();
    for (labels, rasters_of) in labels.chunks(columns).zip(rasters_of.chunks(columns)) {
        let gap = " ".repeat(GAP);
        let padded = |text: &str| format!("{text:panel_width$}");
        let beside = |parts: Vec<String>| format!("{:numbers$}{}", "", parts.join(&gap));
        lines.push(beside(labels.iter().map(|label| padded(label)).collect()));
        let ruler = ruler(rasters.scale);
        lines.push(beside(vec![padded(&ruler); labels.len()]));
        let rows = if color == TextColor::None { 1 } else { 2 };
        for row in (0..size).step_by(rows) {
            let mut line = match row % ROWS_PER_NUMBER {
                0 => format!("{:>1$} ", row * rasters.scale.blocks_per_cell, numbers - 1),
                _ => " ".repeat(numbers),
            };
            for (at, raster) in rasters_of.iter().enumerate() {
                if at > 0 {
                    line += &gap;
                }
                line += &match color {
                    TextColor::None => plain_row(raster, row, coarse),
                    color => colored_rows(raster, row, color),
                };
                line += &" ".repeat(panel_width - size);
            }
            lines.push(line);
        }
        lines.push(String::new());
    }
    lines
}

/// Numbers of key blocks above a panel.
fn ruler(scale: Scale) -> String {
    let mut ruler = String::new();
    for column in (0..scale.cells()).step_by(COLUMNS_PER_NUMBER) {
        let number = (column * scale.blocks_per_cell).to_string();
        if column >= ruler.len() && column + number.len() <= scale.cells() {
            ruler = format!("{ruler:column$}{number} ");
        }
    }
    ruler.trim_end().to_owned()
}

/// One character for a cell. Where cells are `coarse`, shades tell how much of them is attended.
fn character(cell: Cell, coarse: bool) -> char {
    match cell {
        Cell::Masked => ' ',
        Cell::Dropped => '·',
        Cell::EmptyRow => '×',
        Cell::Kept { kind, level } if coarse || kind == Kind::Union => shade(level),
        Cell::Kept { kind, .. } => match kind {
            Kind::Stride => '┃',
            Kind::Sink => '▌',
            Kind::Dense => '■',
            Kind::Local | Kind::Mask | Kind::Union => '█',
        },
    }
}

fn shade(level: u8) -> char {
    ['░', '▒', '▓', '█'][usize::from((level - 1) * 4 / LEVELS)]
}

fn plain_row(raster: &Raster, row: usize, coarse: bool) -> String {
    (0..raster.size)
        .map(|column| character(raster.at(row, column), coarse))
        .collect()
}

/// Two rows as one line of half blocks.
fn colored_rows(raster: &Raster, row: usize, color: TextColor) -> String {
    let mut line = String::new();
    let mut before = Style::new();
    for column in 0..raster.size {
        let upper = raster.at(row, column);
        let lower = if row + 1 < raster.size {
            raster.at(row + 1, column)
        } else {
            Cell::Masked
        };
        let ink = |cell| (cell != Cell::Masked).then(|| terminal_color(cell, color));
        let (character, style) = match (ink(upper), ink(lower)) {
            (None, None) => (' ', Style::new()),
            (None, lower) => ('▄', Style::new().fg_color(lower)),
            (upper, lower) => ('▀', Style::new().fg_color(upper).bg_color(lower)),
        };
        if style != before {
            let _ = write!(line, "{before:#}{style}");
            before = style;
        }
        line.push(character);
    }
    let _ = write!(line, "{before:#}");
    line
}

fn terminal_color(cell: Cell, color: TextColor) -> Color {
    let [red, green, blue] = DARK.shaded(cell);
    let rgb = RgbColor(red, green, blue);
    match color {
        TextColor::TrueColor => rgb.into(),
        TextColor::None | TextColor::Ansi256 => anstyle_lossy::rgb_to_xterm(rgb).into(),
    }
}

/// What the cells of the picture mean, in lines of at most `width` characters where they fit.
fn legend(entries: &[Entry], coarse: bool, width: usize, color: TextColor) -> Vec<String> {
    let sample = |&cell: &Cell| match color {
        TextColor::None => character(cell, coarse).to_string(),
        color => {
            let style = Style::new().fg_color(Some(terminal_color(cell, color)));
            format!("{style}██{style:#}")
        }
    };
    let mut lines: Vec<String> = Vec::new();
    let mut used = width;
    for Entry { samples, name } in entries {
        // Shades alone don't tell kinds apart.
        if coarse && color == TextColor::None && matches!(samples[..], [Cell::Kept { .. }]) {
            continue;
        }
        let sample_width = if color == TextColor::None { 1 } else { 2 };
        let entry_width = samples.len() * sample_width + 1 + name.len();
        let entry = samples.iter().map(sample).collect::<String>() + " " + name;
        match lines.last_mut() {
            Some(line) if used + LEGEND_GAP + entry_width <= width => {
                *line += &" ".repeat(LEGEND_GAP);
                *line += &entry;
                used += LEGEND_GAP + entry_width;
            }
            _ => {
                lines.push(entry);
                used = entry_width;
            }
        }
    }
    lines
}
