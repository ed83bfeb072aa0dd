//! Fonts, colours and text.

use std::fmt::Write;

use ::svg::node::element::Text;

use super::panel::class;
use crate::render::cells::{Cell, Kind, LEVELS};
use crate::render::palette::{DARK, LIGHT, Palette, Rgb};

pub(super) const FONTS: &str = "system-ui, 'Segoe UI', 'Noto Sans', sans-serif";
pub(super) const HEADING_SIZE: f64 = 17.0;
pub(super) const TEXT_SIZE: f64 = 13.0;
pub(super) const AXIS_SIZE: f64 = 11.0;

/// Text with its baseline at `(x, y)`, in a class of the style sheet.
pub(super) fn text(content: impl Into<String>, class: &str, [x, y]: [f64; 2]) -> Text {
    Text::new(content)
        .set("class", class)
        .set("x", x)
        .set("y", y)
}

/// About the width of a text in common fonts.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    0.54 * size * text.chars().count() as f64
}

/// The style sheet: light, and dark where the reader's system is.
pub(super) fn sheet() -> String {
    format!(
        "text{{font-size:{TEXT_SIZE}px}}\
         .heading{{font-size:{HEADING_SIZE}px;font-weight:600}}\
         .axis{{font-size:{AXIS_SIZE}px}}\
         .lines{{fill:none;stroke-width:.08}}\
         {}\n@media(prefers-color-scheme:dark){{{}}}",
        colors(&LIGHT),
        colors(&DARK)
    )
}

fn colors(palette: &Palette) -> String {
    let mut css = String::new();
    let hex = |[red, green, blue]: Rgb| format!("#{red:02x}{green:02x}{blue:02x}");
    let (card, border) = (hex(palette.card), hex(palette.border));
    let (ink, faint_ink) = (hex(palette.ink), hex(palette.faint_ink));
    let _ = write!(
        css,
        ".card{{fill:{card};stroke:{border}}}.lines{{stroke:{card}}}\
         text{{fill:{faint_ink}}}.heading,.label{{fill:{ink}}}"
    );
    let kept = Kind::ALL.map(|kind| Cell::Kept {
        kind,
        level: LEVELS,
    });
    for cell in [Cell::Masked, Cell::Dropped, Cell::EmptyRow]
        .into_iter()
        .chain(kept)
    {
        let _ = write!(css, ".{}{{fill:{}}}", class(cell), hex(palette.cell(cell)));
    }
    css
}
