//! SVG plots.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, anyhow, ensure};
use plotters::prelude::*;
use s2_bench::record::{Dtype, Pass, Row};
use s2_bench::summary::{BURN_ATTENTION, S2_ATTENTION, one_run, summarize};

/// A plot of one run.
pub enum Plot {
    /// Time against length, sparse and dense.
    TimeByLength,
    /// Speed-up over dense against density, at one length.
    SpeedupByDensity,
}

/// Shown side by side.
const PASSES: [(Pass, &str); 2] = [
    (Pass::Forward, "forward"),
    (Pass::ForwardBackward, "forward + backward"),
];

/// Distinguishable for the colour-blind (Okabe and Ito).
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// Points of each series by its label.
type Curves = BTreeMap<String, Vec<(f64, f64)>>;

impl Plot {
    /// The file in `docs/src/images`.
    pub fn file_name(&self) -> &'static str {
        match self {
            Plot::TimeByLength => "time-by-length.svg",
            Plot::SpeedupByDensity => "speedup-by-density.svg",
        }
    }

    /// For readers who do not see it.
    pub fn title(&self) -> &'static str {
        match self {
            Plot::TimeByLength => "Time of a call against length",
            Plot::SpeedupByDensity => "Speed-up over dense attention against density",
        }
    }

    /// The picture.
    ///
    /// # Errors
    /// Rows of several runs, or too few rows to draw a line.
    pub fn render(&self, rows: &[Row]) -> anyhow::Result<String> {
        one_run(rows)?;
        let panels: Vec<(&str, Curves)> = match self {
            Plot::TimeByLength => {
                let family = widest(rows, family, |row| row.seq_kv)?;
                PASSES
                    .iter()
                    .map(|(pass, title)| (*title, times(rows, family, *pass)))
                    .collect()
            }
            Plot::SpeedupByDensity => {
                let key = |row: &Row| (family(row), row.seq_kv, row.block, row.local_blocks);
                let sparse: Vec<Row> = rows
                    .iter()
                    .filter(|row| row.density < 1.0)
                    .cloned()
                    .collect();
                let chosen = widest(&sparse, key, |row| row.vert_stride.unwrap_or(0))?;
                let panel = |pass| speedups(rows, |row| key(row) == chosen, pass);
                PASSES
                    .iter()
                    .map(|(pass, title)| Ok((*title, panel(*pass)?)))
                    .collect::<anyhow::Result<_>>()?
            }
        };
        let (x_label, y_label) = match self {
            Plot::TimeByLength => ("tokens", "ms"),
            Plot::SpeedupByDensity => ("density", "speed-up"),
        };
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (960, 400)).into_drawing_area();
            area.fill(&WHITE).map_err(drawing)?;
            for (area, (title, curves)) in area.split_evenly((1, panels.len())).iter().zip(&panels)
            {
                draw(area, title, [x_label, y_label], curves)?;
            }
            area.present().map_err(drawing)?;
        }
        Ok(svg)
    }
}

/// What rows share that differ in length and pattern only.
type Family = (Dtype, usize, usize, usize, usize);

fn family(row: &Row) -> Family {
    (row.dtype, row.batch, row.heads, row.kv_heads, row.head_dim)
}

/// The group of this library's rows that covers the most values.
fn widest<Key: Ord + Copy>(
    rows: &[Row],
    key: impl Fn(&Row) -> Key,
    value: impl Fn(&Row) -> usize,
) -> anyhow::Result<Key> {
    let mut values: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.provider == S2_ATTENTION) {
        let values = values.entry(key(row)).or_default();
        let value = value(row);
        if !values.contains(&value) {
            values.push(value);
        }
    }
    let (key, values) = values
        .into_iter()
        .max_by_key(|(_, values)| values.len())
        .context("no rows of this library")?;
    ensure!(values.len() > 1, "one point is no line");
    Ok(key)
}

fn times(rows: &[Row], chosen: Family, pass: Pass) -> Curves {
    let mut curves = Curves::new();
    for row in rows
        .iter()
        .filter(|row| family(row) == chosen && row.pass == pass)
    {
        let pattern = match (row.local_blocks, row.vert_stride, row.block) {
            (Some(local), Some(stride), Some(block)) => {
                format!("block {block}, local {local}, stride {stride}")
            }
            _ => "dense".to_owned(),
        };
        let who = if row.provider == S2_ATTENTION {
            "S2"
        } else {
            "Burn"
        };
        curves
            .entry(format!("{who} {pattern}"))
            .or_default()
            .push((row.seq_kv as f64, row.median_us / 1e3));
    }
    curves.retain(|_, points| points.len() > 1);
    curves
}

fn speedups(rows: &[Row], chosen: impl Fn(&Row) -> bool, pass: Pass) -> anyhow::Result<Curves> {
    let mut curves = Curves::new();
    for (baseline, label) in [
        (BURN_ATTENTION, "over Burn's dense"),
        (S2_ATTENTION, "over our own dense"),
    ] {
        let lines = summarize(rows, baseline)?;
        let lines = lines.iter().filter(|line| {
            line.row.provider == S2_ATTENTION && line.row.pass == pass && chosen(line.row)
        });
        let points: Vec<(f64, f64)> = lines
            .filter_map(|line| Some((line.row.density, line.speedup?)))
            .collect();
        if points.len() > 1 {
            curves.insert(label.to_owned(), points);
        }
    }
    let densities: Vec<f64> = curves
        .values()
        .flatten()
        .map(|(density, _)| *density)
        .collect();
    curves.insert(
        "1 / density".to_owned(),
        densities
            .into_iter()
            .map(|density| (density, 1.0 / density))
            .collect(),
    );
    Ok(curves)
}

/// One panel with logarithmic axes.
fn draw(
    area: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    title: &str,
    labels: [&str; 2],
    curves: &Curves,
) -> anyhow::Result<()> {
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
        if *value < 10.0 {
            format!("{value:.2}")
        } else {
            format!("{value:.0}")
        }
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
    for ((label, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
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
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
        .map_err(drawing)?;
    Ok(())
}

fn drawing<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}
