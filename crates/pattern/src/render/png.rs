//! SVG to PNG, with the fonts of the `notosans` crate, so that the picture is the same on every
//! machine.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::RenderError;

pub(super) fn write(svg: &str, scale: f32) -> Result<Vec<u8>, RenderError> {
    let error = |reason: String| RenderError::Png {
        scale: scale.to_string(),
        reason,
    };
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
    fonts.load_font_data(notosans::BOLD_TTF.to_vec());
    let options = Options {
        fontdb: Arc::new(fonts),
        font_family: "Noto Sans".into(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|reason| error(reason.to_string()))?;
    let pixels = |length: f32| (length * scale).round();
    let (width, height) = (pixels(tree.size().width()), pixels(tree.size().height()));
    let mut pixmap = Pixmap::new(width as u32, height as u32)
        .ok_or_else(|| error(format!("{width} x {height} pixels")))?;
    resvg::render(
        &tree,
        Transform::from_scale(scale, scale),
        &mut pixmap.as_mut(),
    );
    pixmap
        .encode_png()
        .map_err(|reason| error(reason.to_string()))
}
