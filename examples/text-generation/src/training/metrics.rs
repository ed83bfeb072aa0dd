//! Training speed, as a metric of Burn's.

use std::{sync::Arc, time::Instant};

use burn::{
    tensor::TensorReadError,
    train::metric::{
        Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes,
        NumericEntry, SerializedEntry,
    },
};

/// Name of [`TokensPerSecond`].
pub const TOKENS_PER_SECOND: &str = "Tokens per second";

/// Tokens (here bytes) per second since the start of an interval, validation not counted.
#[derive(Clone)]
pub struct TokensPerSecond {
    context: usize,
    /// When the first step of the interval had ended, and the windows seen by then.
    start: Option<(Instant, usize)>,
    value: Option<f64>,
}

impl TokensPerSecond {
    /// Counts `context` tokens for each window.
    pub fn new(context: usize) -> Self {
        Self {
            context,
            start: None,
            value: None,
        }
    }

    fn entry(&self, kind: impl Fn(f64) -> NumericEntry) -> SerializedEntry {
        match self.value {
            Some(value) => {
                SerializedEntry::new(format!("{value:.0} tokens/s"), kind(value).serialize())
            }
            None => SerializedEntry::not_available(Some("tokens/s")),
        }
    }
}

impl Metric for TokensPerSecond {
    type Input = ();

    fn update(
        &mut self,
        _: &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let windows = metadata.progress.items_processed;
        match self.start {
            None => self.start = Some((Instant::now(), windows)),
            Some((start, before)) => {
                let tokens = ((windows - before) * self.context) as f64;
                self.value = Some(tokens / start.elapsed().as_secs_f64());
            }
        }
        Ok(self.entry(NumericEntry::Value))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry(NumericEntry::Final))
    }

    fn clear(&mut self) {
        self.start = None;
        self.value = None;
    }

    fn name(&self) -> MetricName {
        Arc::new(TOKENS_PER_SECOND.into())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some("tokens/s".into()),
            higher_is_better: true,
        }
        .into()
    }
}

impl Numeric for TokensPerSecond {
    fn value(&self) -> Option<NumericEntry> {
        self.value.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.value.unwrap_or(f64::NAN))
    }
}
