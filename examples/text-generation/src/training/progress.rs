//! Progress for people: one bar on a terminal, plain lines in a log.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use burn::train::{
    LearnerSummary,
    logger::{EvaluationProgressLogger, TrainingProgressLogger},
    metric::{MetricDefinition, MetricEntry},
    renderer::{
        EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
        MetricsRendererTraining,
    },
};
use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

use super::metrics::TOKENS_PER_SECOND;
use crate::{config::RunConfig, data::Baselines};

/// Without a terminal, the time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Shows loss, speed and remaining time on standard error.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    batch: usize,
    steps_per_interval: usize,
    steps: usize,
    bigram: f64,
    metrics: Vec<MetricDefinition>,
    /// The interval that is running, counted from 1.
    interval: usize,
    validating: bool,
    first_step: usize,
    step: usize,
    start: Instant,
    last_line: Instant,
    train_loss: Option<f64>,
    valid_loss: Option<f64>,
    learning_rate: Option<f64>,
    tokens_per_second: Option<f64>,
}

impl Progress {
    /// Progress of a run that continues after `done` intervals.
    pub fn new(config: &RunConfig, done: usize, baselines: Baselines) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let steps = config.training.steps;
        let step = done * config.training.interval;
        let bar = if terminal {
            ProgressBar::new(steps as u64)
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}")
                .expect("a template that indicatif reads"),
        );
        Self {
            bar,
            terminal,
            batch: config.training.batch,
            steps_per_interval: config.training.interval,
            steps,
            bigram: baselines.bigram,
            metrics: Vec::new(),
            interval: done + 1,
            validating: false,
            first_step: step,
            step,
            start: Instant::now(),
            last_line: Instant::now(),
            train_loss: None,
            valid_loss: None,
            learning_rate: None,
            tokens_per_second: None,
        }
    }

    fn name(&self, entry: &MetricEntry) -> &str {
        let definition = self
            .metrics
            .iter()
            .find(|metric| metric.metric_id == entry.metric_id);
        definition.map_or("", |metric| metric.name.as_str())
    }

    /// Remaining time, if the rest is as fast as what this process has done.
    fn remaining(&self) -> FormattedDuration {
        let done = (self.step - self.first_step).max(1) as f64;
        let rest = (self.steps - self.step) as f64;
        FormattedDuration(Duration::from_secs_f64(
            self.start.elapsed().as_secs_f64() * rest / done,
        ))
    }

    fn show(&mut self) {
        let mut parts = Vec::new();
        if let Some(loss) = self.train_loss {
            parts.push(format!("loss {loss:.3}"));
        }
        if let Some(loss) = self.valid_loss {
            parts.push(format!("valid {loss:.3}"));
        }
        if let Some(speed) = self.tokens_per_second {
            parts.push(format!("{speed:.0} tokens/s"));
        }
        if self.validating {
            parts.push("validating".into());
        } else if self.step > self.first_step {
            parts.push(format!("{} left", self.remaining()));
        }
        let message = parts.join("  ");
        self.bar.set_position(self.step as u64);
        if !self.terminal && self.last_line.elapsed() >= LINE_EVERY {
            self.line(format!("step {:>5}/{}  {message}", self.step, self.steps));
        }
        self.bar.set_message(message);
    }

    fn line(&mut self, line: String) {
        self.last_line = Instant::now();
        match self.terminal {
            true => self.bar.println(line),
            false => eprintln!("{line}"),
        }
    }
}

impl MetricsRendererTraining for Progress {
    fn update_train(&mut self, state: MetricState) {
        let MetricState::Numeric(entry, Some(value)) = state else {
            return;
        };
        match self.name(&entry) {
            "Loss" => self.train_loss = Some(value.current()),
            "Learning Rate" => self.learning_rate = Some(value.current()),
            TOKENS_PER_SECOND => self.tokens_per_second = Some(value.current()),
            _ => {}
        }
    }

    fn update_valid(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(value)) = state
            && self.name(&entry) == "Loss"
        {
            self.valid_loss = Some(value.current());
        }
    }

    fn on_train_end(
        &mut self,
        _: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn core::error::Error>> {
        self.bar.finish_and_clear();
        Ok(())
    }
}

impl TrainingProgressLogger for Progress {
    fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {
        self.start = Instant::now();
        self.show();
    }

    fn start_split(&mut self, split: &str, _: usize) {
        self.validating = split == "valid";
        self.show();
    }

    fn update_split(&mut self, windows: usize) {
        if !self.validating {
            self.step = (self.interval - 1) * self.steps_per_interval + windows / self.batch;
        }
        self.show();
    }

    fn end_split(&mut self) {}

    fn update_epoch(&mut self, interval: usize) {
        let intervals = self.steps.div_ceil(self.steps_per_interval);
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let valid = number(self.valid_loss);
        self.line(format!(
            "interval {interval:>3}/{intervals}  train {:.3}  valid {valid:.3} (bigram {:.3})  perplexity {:.2}  learning rate {:.1e}  {:.0} tokens/s  {} left",
            number(self.train_loss),
            self.bigram,
            valid.exp(),
            number(self.learning_rate),
            number(self.tokens_per_second),
            self.remaining(),
        ));
        self.interval = interval + 1;
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _: String) {}
}

impl MetricsRenderer for Progress {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.metrics.push(definition);
    }
}

// Nothing is evaluated through the learner, but a renderer has to be able to show it.
impl MetricsRendererEvaluation for Progress {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl EvaluationProgressLogger for Progress {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}
