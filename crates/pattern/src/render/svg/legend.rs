//! What the colours mean.

use ::svg::node::element::{Group, Rectangle};

use super::Drawn;
use super::panel::class;
use super::style::{TEXT_SIZE, text, text_width};
use crate::render::legend::Entry;
use crate::render::palette;

/// Side of a sample.
const SAMPLE: f64 = 13.0;
/// Between a sample and its name, and between entries.
const GAP: f64 = 6.0;
const ENTRY_GAP: f64 = 22.0;
const LINE: f64 = 22.0;

/// Entries side by side, in lines of at most `width` units.
pub(super) fn draw(entries: &[Entry], width: f64) -> Drawn {
    let mut group = Group::new();
    let (mut x, mut y, mut widest) = (0.0, 0.0, 0.0_f64);
    for entry in entries {
        let samples = SAMPLE * entry.samples.len() as f64;
        let entry_width = samples + GAP + text_width(&entry.name, TEXT_SIZE);
        if x > 0.0 && x + entry_width > width {
            (x, y) = (0.0, y + LINE);
        }
        for (at, &cell) in entry.samples.iter().enumerate() {
            let sample = Rectangle::new()
                .set("x", x + at as f64 * SAMPLE)
                .set("y", y)
                .set("width", SAMPLE)
                .set("height", SAMPLE)
                .set("class", class(cell))
                .set("fill-opacity", format!("{:.2}", palette::opacity(cell)));
            group = group.add(sample);
        }
        group = group.add(text(
            &*entry.name,
            "note",
            [x + samples + GAP, y + SAMPLE - 2.0],
        ));
        widest = widest.max(x + entry_width);
        x += entry_width + ENTRY_GAP;
    }
    Drawn {
        group,
        width: widest,
        height: y + SAMPLE,
    }
}
