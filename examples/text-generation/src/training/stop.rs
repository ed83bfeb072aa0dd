//! When training ends before its last step.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use burn::train::{EarlyStoppingStrategy, metric::store::EventStoreClient};

use super::checkpoint::best_interval;

/// Ends training at the end of an interval, after its checkpoint is written.
///
/// Without memory of its own, so that a resumed run stops where an unbroken one does.
#[derive(Clone, Debug, Default)]
pub struct StopRules {
    /// Intervals without a lower validation loss.
    pub patience: Option<usize>,
    /// Time since the process began to train.
    pub limit: Option<(Instant, Duration)>,
    /// Why training was ended, if it was.
    pub reason: Arc<OnceLock<Stopped>>,
}

/// Why training ended before its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The validation loss no longer falls; its lowest was in this interval.
    NoImprovement {
        /// The interval, counted from 1.
        best: usize,
    },
    /// The time is up; this interval is complete.
    TimeIsUp {
        /// The interval, counted from 1.
        interval: usize,
    },
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImprovement { best } => {
                write!(
                    f,
                    "the validation loss was lowest in interval {best}, whose model this is"
                )
            }
            Self::TimeIsUp { interval } => write!(f, "the time was up after interval {interval}"),
        }
    }
}

impl EarlyStoppingStrategy for StopRules {
    fn should_stop(&mut self, interval: usize, store: &EventStoreClient) -> bool {
        if let (Some(patience), Some(best)) = (self.patience, best_interval(store))
            && interval >= best + patience
        {
            self.reason.set(Stopped::NoImprovement { best }).ok();
        } else if let Some((start, limit)) = self.limit
            && start.elapsed() >= limit
        {
            self.reason.set(Stopped::TimeIsUp { interval }).ok();
        }
        self.reason.get().is_some()
    }
}
