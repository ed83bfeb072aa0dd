//! A panel with its label and axes.

use ::svg::node::element::Group;

use super::panel;
use super::shared::Shared;
use super::style::{AXIS_SIZE, text};
use crate::render::cells::Raster;

/// Above the panel, for its label.
pub(super) const LABEL: f64 = 20.0;
/// Left of the panel and below it, for its axes.
pub(super) const AXIS: f64 = 30.0;
pub(super) const FOOT: f64 = 18.0;

/// A panel to draw.
pub(super) struct Frame<'a> {
    pub label: &'a str,
    pub raster: &'a Raster,
    /// Its upper left corner, the label included.
    pub corner: [f64; 2],
    /// Side of the square.
    pub side: f64,
    /// The last block, where the axis is drawn: query blocks on the left, key blocks below.
    pub left_axis: Option<usize>,
    pub lower_axis: Option<usize>,
}

impl Frame<'_> {
    pub fn draw(&self, shared: &mut Shared) -> Group {
        let [x, y] = self.corner;
        let (side, middle) = (self.side, self.side / 2.0);
        let square = panel::draw(self.raster, side, shared);
        let mut group = Group::new()
            .set("transform", format!("translate({x:.1} {:.1})", y + LABEL))
            .add(text(self.label, "label", [0.0, -7.0]))
            .add(square);
        let axis = |content: &str, at: [f64; 2], anchor: &str| {
            text(content, "axis", at).set("text-anchor", anchor)
        };
        if let Some(last) = self.left_axis {
            // Turned by a quarter, x runs upwards and y to the right.
            let name = axis("query block", [-middle, -8.0], "middle");
            let ends = [
                axis("0", [0.0, -8.0], "end"),
                axis(&last.to_string(), [-side, -8.0], "start"),
            ];
            let turned = Group::new().set("transform", "rotate(-90)");
            group = group.add(ends.into_iter().fold(turned.add(name), Group::add));
        }
        if let Some(last) = self.lower_axis {
            let below = side + AXIS_SIZE + 4.0;
            group = group
                .add(axis("0", [0.0, below], "start"))
                .add(axis("key block", [middle, below], "middle"))
                .add(axis(&last.to_string(), [side, below], "end"));
        }
        group
    }
}
