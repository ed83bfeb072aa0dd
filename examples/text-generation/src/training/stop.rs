//! When training ends before its last step.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use burn::train::{
    EarlyStoppingStrategy,
    metric::store::{Aggregate, EventStoreClient, Split},
};

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
    /// The loss of this interval is not a number.
    Diverged {
        /// The interval, counted from 1.
        interval: usize,
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
            Self::Diverged { interval } => {
                write!(f, "the loss of interval {interval} is not a number")
            }
            Self::TimeIsUp { interval } => write!(f, "the time was up after interval {interval}"),
        }
    }
}

impl StopRules {
    /// Whether the run ends with `interval`, where the lowest validation loss was that of `best`.
    pub fn patience_ends(&self, best: usize, interval: usize) -> bool {
        self.patience
            .is_some_and(|patience| interval >= best + patience)
    }
}

impl EarlyStoppingStrategy for StopRules {
    fn should_stop(&mut self, interval: usize, store: &EventStoreClient) -> bool {
        let loss = |split| store.find_metric("Loss", interval, Aggregate::Mean, &split);
        let losses = [loss(Split::Train), loss(Split::Valid)];
        if losses.into_iter().flatten().any(|loss| !loss.is_finite()) {
            self.reason.set(Stopped::Diverged { interval }).ok();
        } else if let Some(best) = best_interval(store)
            && self.patience_ends(best, interval)
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
