//! What a report can show.

use anyhow::bail;

use super::plots::Plot;
use super::tables::Table;

/// A table or a picture.
pub enum View {
    /// Markdown.
    Table(Table),
    /// SVG, shown by a link.
    Plot(Plot),
}

impl View {
    /// The view of a marker.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        match name {
            "speed" => Ok(View::Table(Table::Speed)),
            "points" => Ok(View::Table(Table::Points)),
            "time-by-length" => Ok(View::Plot(Plot::TimeByLength)),
            "speedup-by-density" => Ok(View::Plot(Plot::SpeedupByDensity)),
            _ => bail!(
                "no view is named {name:?}: speed, points, time-by-length, speedup-by-density are accepted"
            ),
        }
    }

    /// The name in a marker.
    pub fn name(&self) -> &'static str {
        match self {
            View::Table(Table::Speed) => "speed",
            View::Table(Table::Points) => "points",
            View::Plot(Plot::TimeByLength) => "time-by-length",
            View::Plot(Plot::SpeedupByDensity) => "speedup-by-density",
        }
    }
}
