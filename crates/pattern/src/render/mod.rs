//! Pictures of patterns, as terminal text, SVG and PNG (features `render` and `render-png`).
//!
//! A [`Picture`] is a grid of panels, one for each head that differs from the others and one for
//! what the heads attend together. In a panel rows are query blocks and columns are key blocks.
//! Blocks are coloured by what keeps them: a local window, a stride, a sink, a dense head, a mask;
//! the panel of all heads is shaded by how many of them attend a block. Rows that attend nothing
//! stand out.
//!
//! ```
//! use s2_attention_pattern::{PatternConfig, render::{Picture, TextColor, View}};
//!
//! let pattern = PatternConfig::local_stride(2, 4, 64, 4).build()?;
//! let picture = Picture::new(&pattern, 12, View::Heads)?;
//! println!("{}", picture.to_text(80, TextColor::None));
//! assert!(picture.to_svg().starts_with("<svg"));
//! # Ok::<(), s2_attention_pattern::render::RenderError>(())
//! ```

mod cells;
mod error;
mod labels;
mod legend;
mod palette;
#[cfg(feature = "render-png")]
mod png;
mod section;
mod svg;
mod text;

pub use error::RenderError;
pub use text::TextColor;

use crate::pattern::Pattern;
use section::Section;

/// Largest length that is drawn, in blocks. Cells of long pictures stand for several blocks each.
pub const MAX_PICTURE_BLOCKS: usize = 1 << 16;

/// Most heads that are drawn side by side; a picture says how many it leaves out.
pub const MAX_PANELS: usize = 32;

/// What a picture shows of a pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum View {
    /// All heads side by side, those with the same pattern as one, and what they attend together.
    #[default]
    Heads,
    /// One query head, numbered as in [`Pattern::head`].
    Head(usize),
    /// What the heads attend together, shaded by how many attend a block.
    Union,
}

/// A picture of one pattern, or of the patterns of a model's layers.
#[derive(Clone, Debug)]
pub struct Picture {
    sections: Vec<Section>,
}

impl Picture {
    /// The pattern of a sequence of `blocks` blocks that attends itself.
    ///
    /// # Errors
    /// No blocks, more than [`MAX_PICTURE_BLOCKS`] or than the pattern's table covers, or a head
    /// that does not exist.
    pub fn new(pattern: &Pattern, blocks: usize, view: View) -> Result<Self, RenderError> {
        let section = Section::new(pattern, blocks, view, pattern.to_string())?;
        Ok(Self {
            sections: vec![section],
        })
    }

    /// The patterns of a model's layers, for a sequence of `blocks` blocks. Equal layers are drawn
    /// once: "layers 2-5".
    ///
    /// # Errors
    /// No layers, and what [`new`](Self::new) refuses.
    pub fn of_layers(patterns: &[Pattern], blocks: usize) -> Result<Self, RenderError> {
        if patterns.is_empty() {
            return Err(RenderError::NoLayers);
        }
        let mut distinct: Vec<(&Pattern, Vec<usize>)> = Vec::new();
        for (layer, pattern) in patterns.iter().enumerate() {
            match distinct.iter_mut().find(|(known, _)| *known == pattern) {
                Some((_, layers)) => layers.push(layer),
                None => distinct.push((pattern, vec![layer])),
            }
        }
        let sections = distinct.into_iter().map(|(pattern, layers)| {
            let heading = format!("{}: {pattern}", labels::named("layer", &layers));
            Section::new(pattern, blocks, View::Heads, heading)
        });
        Ok(Self {
            sections: sections.collect::<Result<_, _>>()?,
        })
    }

    /// Text for a terminal of `width` columns, at least 40, with a newline at its end.
    ///
    /// Without colour each cell is one character, with colour half of one. Where `width` does not
    /// hold a panel, cells stand for several blocks each; the text says so.
    pub fn to_text(&self, width: usize, color: TextColor) -> String {
        text::write(&self.sections, width, color)
    }

    /// An SVG document for light and dark backgrounds.
    pub fn to_svg(&self) -> String {
        svg::write(&self.sections)
    }

    /// A PNG file: the SVG picture, for a light background, with `scale` pixels for each of its
    /// units.
    ///
    /// # Errors
    /// A scale that gives no picture, or one too large for memory.
    #[cfg(feature = "render-png")]
    pub fn to_png(&self, scale: f32) -> Result<Vec<u8>, RenderError> {
        png::write(&self.to_svg(), scale)
    }
}

/// An SVG document of the patterns of a model's layers: [`Picture::of_layers`].
///
/// # Errors
/// No layers, no blocks, or more than [`MAX_PICTURE_BLOCKS`] or than a pattern's table covers.
pub fn layers_svg(patterns: &[Pattern], blocks: usize) -> Result<String, RenderError> {
    Ok(Picture::of_layers(patterns, blocks)?.to_svg())
}
