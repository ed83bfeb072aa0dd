//! SVG plots.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;
use s2_bench::record::{Pass, Row};
use s2_bench::summary::{
    BURN_ATTENTION, S2_ATTENTION, SDPA_FLASH, dense_baseline, dense_name, points, summarize,
};

use super::series::{Series, family, ours, pattern, series, sparse, widest};

/// Shown side by side: the two of the longest curves, in this order.
const PASSES: [(Pass, &str); 3] = [
    (Pass::Forward, "forward"),
    (Pass::ForwardBackward, "forward + backward"),
    (Pass::Backward, "backward"),
];
const PANELS: usize = 2;

/// Distinguishable for the colour-blind (Okabe and Ito).
pub(super) const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(160, 150, 20),
    RGBColor(0, 0, 0),
];

/// Points of each series by its label.
type Curves = BTreeMap<String, Vec<(f64, f64)>>;
type Colours = BTreeMap<String, RGBColor>;

/// Time against length: the pattern that was timed at most lengths, and dense, by everyone who was timed.
///
/// # Errors
/// Rows of several runs, or too few rows to draw a line.
pub fn time_by_length(rows: &[Row]) -> Result<String> {
    let rows = points(rows)?;
    let pattern = widest(&sparse(&rows), series, |row| row.seq_kv)?;
    draw(["tokens", "ms"], SeriesLabelPosition::UpperLeft, |pass| {
        Ok(times(&rows, pattern, pass))
    })
}

/// Speed-up over dense attention against density, at the length and block size that have most strides.
///
/// # Errors
/// Rows of several runs, or too few rows to draw a line.
pub fn speedup_by_density(rows: &[Row]) -> Result<String> {
    let points = points(rows)?;
    let key = |row: &Row| (family(row), row.seq_kv, row.block, row.local_blocks);
    let chosen = widest(&sparse(&points), key, |row| row.vert_stride.unwrap_or(0))?;
    draw(
        ["density", "speed-up"],
        SeriesLabelPosition::UpperRight,
        |pass| speedups(rows, |row| key(row) == chosen, pass),
    )
}

fn times(rows: &[&Row], chosen: Series, pass: Pass) -> Curves {
    let of_family = |row: &&&Row| row.pass == pass && family(row) == chosen.0;
    let family: Vec<&Row> = rows.iter().filter(of_family).copied().collect();
    let mut curves = Curves::new();
    for &row in &family {
        if row.is_dense() || series(row) == chosen {
            curves
                .entry(format!("{} {}", who(&family, row), pattern(row)))
                .or_default()
                .push((row.seq_kv as f64, row.median_us / 1e3));
        }
    }
    curves.retain(|_, points| points.len() > 1);
    curves
}

fn who(rows: &[&Row], row: &Row) -> String {
    match row.provider.as_str() {
        S2_ATTENTION => ours(rows, row),
        BURN_ATTENTION => "Burn".to_owned(),
        SDPA_FLASH => "FlashAttention-2".to_owned(),
        other => other.to_owned(),
    }
}

/// This library over the baseline and over its own dense attention, and everyone else over the baseline.
fn speedups(rows: &[Row], chosen: impl Fn(&Row) -> bool, pass: Pass) -> Result<Curves> {
    let mut curves = Curves::new();
    let baseline = dense_baseline(rows);
    let all = points(rows)?;
    let over = |row: &Row, dense: &str| {
        let dense = dense_name(dense);
        match ours(&all, row).as_str() {
            "S2" => format!("over {dense}"),
            engine => format!("{engine} over {dense}"),
        }
    };
    let mut baselines = vec![baseline, S2_ATTENTION];
    baselines.dedup();
    for dense in baselines {
        for line in summarize(rows, dense)? {
            let row = line.row;
            let label = match row.provider.as_str() {
                S2_ATTENTION => over(row, dense),
                peer if dense == baseline => format!("{peer} over it"),
                _ => continue,
            };
            if let Some(speedup) = line.speedup
                && row.pass == pass
                && chosen(row)
            {
                let curve = curves.entry(label).or_default();
                curve.push((row.density, speedup));
            }
        }
    }
    curves.retain(|_, points| points.len() > 1);
    // The ideal alone is no picture of a pass.
    if curves.is_empty() {
        return Ok(curves);
    }
    let densities = curves.values().flatten().map(|(density, _)| *density);
    let mut densities: Vec<f64> = densities.collect();
    densities.sort_by(f64::total_cmp);
    densities.dedup();
    curves.insert(
        "1 / density".to_owned(),
        densities
            .into_iter()
            .map(|density| (density, 1.0 / density))
            .collect(),
    );
    Ok(curves)
}

/// The passes side by side.
fn draw(
    labels: [&str; 2],
    legend: SeriesLabelPosition,
    curves: impl Fn(Pass) -> Result<Curves>,
) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (960, 400)).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    let mut panels = Vec::new();
    for (pass, title) in PASSES {
        let curves = curves(pass)?;
        if !curves.is_empty() {
            panels.push((title, curves));
        }
    }
    // Of equal ones the first stays.
    while panels.len() > PANELS {
        let fewest = (0..panels.len())
            .rev()
            .min_by_key(|&at| longest(&panels[at].1));
        panels.remove(fewest.expect("there are panels"));
    }
    ensure!(!panels.is_empty(), "nothing to draw: lines take two points");
    // A curve has the same colour in both.
    let names = panels.iter().flat_map(|(_, curves)| curves.keys().cloned());
    let names: BTreeSet<String> = names.collect();
    let colours: Colours = names.into_iter().zip(COLOURS.into_iter().cycle()).collect();
    for (area, (title, curves)) in area.split_evenly((1, panels.len())).iter().zip(&panels) {
        draw_panel(area, title, labels, legend.clone(), curves, &colours)?;
    }
    area.present().map_err(drawing)?;
    drop(area);
    Ok(svg)
}

/// Points of the longest curve.
fn longest(curves: &Curves) -> usize {
    curves.values().map(Vec::len).max().unwrap_or(0)
}

/// One panel with logarithmic axes.
fn draw_panel(
    area: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    title: &str,
    labels: [&str; 2],
    legend: SeriesLabelPosition,
    curves: &Curves,
    colours: &Colours,
) -> Result<()> {
    let range = |value: fn(&(f64, f64)) -> f64| -> Range<f64> {
        let values = curves.values().flatten().map(value);
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        low * 0.8..high * 1.25
    };
    let (x_range, y_range) = (range(|point| point.0), range(|point| point.1));
    ensure!(x_range.start < x_range.end, "nothing to draw for {title}");
    let mut x_values: Vec<f64> = curves.values().flatten().map(|point| point.0).collect();
    x_values.sort_by(f64::total_cmp);
    x_values.dedup();
    let label = |value: &f64| {
        let decimals = if value.fract() == 0.0 { 0 } else { 2 };
        format!("{value:.decimals$}")
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(
            x_range.log_scale().base(2.0).with_key_points(x_values),
            y_range.log_scale().base(2.0),
        )
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(labels[0])
        .y_desc(labels[1])
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .draw()
        .map_err(drawing)?;
    for (label, points) in curves {
        let colour = colours[label];
        let mut points = points.clone();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup();
        let line = chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))
            .map_err(drawing)?;
        line.label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let dots = points
            .into_iter()
            .map(|point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(dots).map_err(drawing)?;
    }
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
        .map_err(drawing)?;
    Ok(())
}

pub(super) fn drawing<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}
