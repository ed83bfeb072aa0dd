//! Several runs beside each other: the same training on several devices, or several trainings on one.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;

use super::{History, loss_plot::legend};

/// Rows of the table, at most.
const ROWS: usize = 10;
const COLORS: [RGBColor; 6] = [
    RGBColor(20, 70, 160),
    RGBColor(200, 80, 40),
    RGBColor(40, 140, 70),
    RGBColor(130, 60, 150),
    RGBColor(190, 150, 30),
    RGBColor(90, 90, 90),
];

/// Runs by name, the first of which the others are compared with.
pub struct Comparison {
    runs: Vec<(String, History)>,
}

impl Comparison {
    /// # Errors
    ///
    /// Where there are fewer than two runs, or one has no losses yet.
    pub fn new(runs: Vec<(String, History)>) -> Result<Self> {
        ensure!(runs.len() > 1, "a comparison takes two runs or more");
        for (name, history) in &runs {
            ensure!(
                !history.train.is_empty(),
                "run `{name}` has not finished an interval yet"
            );
        }
        Ok(Self { runs })
    }

    /// Training losses of some steps, and the largest difference from the first run over all steps that both made.
    pub fn table(&self) -> String {
        let names = |cell: fn(&str) -> String| -> String {
            self.runs.iter().map(|(name, _)| cell(name)).collect()
        };
        let mut text = format!(
            "| step |{}\n|---:|{}\n",
            names(|name| format!(" {name} |")),
            names(|_| "---:|".into())
        );
        let steps = self.common_steps();
        let every = steps.div_ceil(ROWS).max(1);
        for step in (1..=steps).filter(|step| step % every == 0 || *step == 1) {
            let losses = self
                .runs
                .iter()
                .map(|(_, history)| format!(" {:.5} |", history.train[step - 1].1));
            text += &format!("| {step} |{}\n", losses.collect::<String>());
        }
        let differences = self
            .runs
            .iter()
            .map(|(_, history)| format!(" {:.1e} |", self.difference(history)));
        text += &format!(
            "| largest difference |{}\n",
            differences.collect::<String>()
        );
        text
    }

    /// Draws the training losses.
    ///
    /// # Errors
    ///
    /// Where the picture cannot be written.
    pub fn draw(&self, path: &Path) -> Result<()> {
        self.try_draw(path)
            .map_err(|error| anyhow!("cannot draw `{}`: {error}", path.display()))
    }

    fn common_steps(&self) -> usize {
        let lengths = self.runs.iter().map(|(_, history)| history.train.len());
        lengths.min().unwrap_or(0)
    }

    fn difference(&self, history: &History) -> f64 {
        let (_, first) = &self.runs[0];
        let pairs = first.train.iter().zip(&history.train);
        pairs.map(|(a, b)| (a.1 - b.1).abs()).fold(0.0, f64::max)
    }

    fn try_draw(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let losses = || self.runs.iter().flat_map(|(_, history)| &history.train);
        let top = losses().map(|point| point.1).fold(0.0, f64::max);
        let lowest = losses().map(|point| point.1).fold(top, f64::min);
        let steps = losses().map(|point| point.0).max().unwrap_or(1) as f64;

        let root = SVGBackend::new(path, (900, 540)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..steps, lowest * 0.95..top * 1.02)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.1))
            .x_desc("step")
            .y_desc("training loss (nats per byte)")
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|loss| format!("{loss:.1}"))
            .label_style(("sans-serif", 15))
            .axis_desc_style(("sans-serif", 17))
            .draw()?;
        // Curves that lie on each other would hide all but the last: earlier ones are wider.
        for (at, (name, history)) in self.runs.iter().enumerate() {
            let color = COLORS[at % COLORS.len()];
            let width = 2 + 3 * (self.runs.len() - 1 - at) as u32;
            let points = history
                .train
                .iter()
                .map(|&(step, loss)| (step as f64, loss));
            let line = LineSeries::new(points, color.mix(0.8).stroke_width(width));
            legend(chart.draw_series(line)?, name, color);
        }
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
}
