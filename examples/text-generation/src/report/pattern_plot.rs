//! The patterns of all layers, in words and as a picture.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use burn_s2_attention::{PatternReport, render::Picture};

use crate::config::ModelConfig;

/// One line for each layer: its pattern, and the share of dense attention's work that it does over
/// one context.
///
/// # Errors
///
/// Where the pattern means nothing.
pub fn describe_patterns(model: &ModelConfig) -> Result<String> {
    let mut text = String::new();
    for (layer, pattern) in model.schedule().patterns(model.layers)?.iter().enumerate() {
        let density = PatternReport::new(pattern, model.context)?.density;
        text += &format!("layer {layer}  {:5.1} %  {pattern}\n", 100.0 * density);
    }
    Ok(text)
}

/// What every head of every layer attends over one context; equal layers once.
///
/// # Errors
///
/// Where the pattern means nothing.
pub fn picture(model: &ModelConfig) -> Result<Picture> {
    let patterns = model.schedule().patterns(model.layers)?;
    Ok(Picture::of_layers(
        &patterns,
        model.context.div_ceil(model.block_size),
    )?)
}

/// Writes [`picture`] as SVG.
///
/// # Errors
///
/// Where the pattern means nothing or the file cannot be written.
pub fn draw_patterns(model: &ModelConfig, path: &Path) -> Result<()> {
    fs::write(path, picture(model)?.to_svg())
        .with_context(|| format!("cannot write `{}`", path.display()))
}
