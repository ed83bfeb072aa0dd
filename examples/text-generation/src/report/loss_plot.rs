//! The picture of a training: losses over the steps, and the baselines.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::History;
use crate::data::Baselines;

/// Points of the training curve, at most.
const POINTS: usize = 150;
const TRAIN: RGBColor = RGBColor(160, 190, 230);
const VALID: RGBColor = RGBColor(20, 70, 160);
const UNIGRAM: RGBColor = RGBColor(150, 150, 150);
const BIGRAM: RGBColor = RGBColor(200, 80, 40);

/// Draws `loss.svg`.
///
/// # Errors
///
/// Where it cannot be written.
pub fn draw_losses(history: &History, baselines: Baselines, path: &Path) -> Result<()> {
    draw(history, baselines, path)
        .map_err(|error| anyhow!("cannot draw `{}`: {error}", path.display()))
}

fn draw(
    history: &History,
    baselines: Baselines,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let steps = history.train.last().map_or(1, |(step, _)| *step) as f64;
    let lowest = history
        .valid
        .iter()
        .chain(&history.train)
        .map(|point| point.1)
        .fold(baselines.bigram, f64::min);
    let top = baselines.unigram * 1.15;

    let root = SVGBackend::new(path, (900, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..steps, lowest * 0.9..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_desc("step")
        .y_desc("loss (nats per byte)")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.1}"))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()?;

    // One step is noisy: the mean of a few is drawn. The first steps of a run are far above all
    // baselines: the line enters from the top.
    let few = history.train.len().div_ceil(POINTS);
    let train = history.train.chunks(few).map(|steps| {
        let (sum, last) = steps
            .iter()
            .fold((0.0, 0), |(sum, _), &(step, loss)| (sum + loss, step));
        (last as f64, (sum / steps.len() as f64).min(top))
    });
    let name = match few {
        1 => "training, each step".into(),
        _ => format!("training, means of {few} steps"),
    };
    legend(
        chart.draw_series(LineSeries::new(train, TRAIN.stroke_width(2)))?,
        &name,
        TRAIN,
    );
    for (loss, name, color) in [
        (baselines.unigram, "unigram", UNIGRAM),
        (baselines.bigram, "bigram, smoothed", BIGRAM),
    ] {
        let line = chart.draw_series(LineSeries::new(
            [(0.0, loss), (steps, loss)],
            color.stroke_width(2),
        ))?;
        legend(line, &format!("{name}: {loss:.3}"), color);
    }
    let valid: Vec<(f64, f64)> = history
        .valid
        .iter()
        .map(|&(step, loss)| (step as f64, loss))
        .collect();
    let name = match valid.last() {
        Some((_, loss)) => format!("validation: {loss:.3}"),
        None => "validation".into(),
    };
    let dots = valid
        .iter()
        .map(|&point| Circle::new(point, 3, VALID.filled()));
    chart.draw_series(dots)?;
    legend(
        chart.draw_series(LineSeries::new(valid, VALID.stroke_width(2)))?,
        &name,
        VALID,
    );
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 15))
        .draw()?;
    root.present()?;
    Ok(())
}

pub(super) fn legend<'a, B: DrawingBackend + 'a>(
    series: &mut plotters::chart::SeriesAnno<'a, B>,
    name: &str,
    color: RGBColor,
) {
    series
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
}
