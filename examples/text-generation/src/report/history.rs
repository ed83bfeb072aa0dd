//! The course of a run, from the logs Burn writes beside its checkpoints.

use burn::train::{
    logger::{FileMetricLogger, MetricLogger},
    metric::{NumericEntry, store::Split},
};

use crate::{config::RunConfig, run_dir::RunDir, training::TOKENS_PER_SECOND};

/// Losses in nats per byte, and speeds.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Step (counted from 1) and loss of each step.
    pub train: Vec<(usize, f64)>,
    /// Step and validation loss of each interval.
    pub valid: Vec<(usize, f64)>,
    /// Tokens per second of each interval.
    pub speeds: Vec<f64>,
}

impl History {
    /// Reads the logs of a run, those of resumed runs included.
    pub fn read(run: &RunDir, config: &RunConfig) -> Self {
        let mut logger = FileMetricLogger::new(run.path());
        let mut history = Self::default();
        let steps = config.training.interval;
        for interval in 1..=config.intervals() {
            let mut read = |name: &str, split: &Split| {
                logger
                    .read_numeric(name, interval, split)
                    .unwrap_or_default()
            };
            let last = |entries: Vec<NumericEntry>| match entries.last() {
                Some(NumericEntry::Final(value)) => Some(*value),
                _ => None,
            };
            // An interval without a last validation loss was not finished.
            let Some(valid) = last(read("Loss", &Split::Valid)) else {
                break;
            };
            let step = (interval * steps).min(config.training.steps);
            history.valid.push((step, valid));
            history
                .speeds
                .extend(last(read(TOKENS_PER_SECOND, &Split::Train)));
            let losses = read("Loss", &Split::Train).into_iter();
            let losses = losses.filter(|entry| !matches!(entry, NumericEntry::Final(_)));
            let first = (interval - 1) * steps;
            history.train.extend(
                losses
                    .enumerate()
                    .map(|(step, loss)| (first + step + 1, loss.current())),
            );
        }
        history
    }

    /// Mean speed over the intervals.
    pub fn tokens_per_second(&self) -> f64 {
        self.speeds.iter().sum::<f64>() / self.speeds.len() as f64
    }
}
