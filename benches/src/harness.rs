//! Timing: warm-up, then the median of many runs.
//!
//! Between runs the caches are filled with other data, so that inputs come from memory as they do in a model, and
//! outputs are dropped outside the timed part. Wall clock around a call that waits for the device: right for the CPU; on
//! a GPU it holds the host's part of the call too.

use std::time::{Duration, Instant};

use crate::memory::peak_bytes;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Fewest timed runs.
    pub runs: usize,
    /// Time before the first timed run is used.
    pub warm_up: Duration,
    /// Runs go on until this much time is measured.
    pub measured: Duration,
    /// A point whose fewest runs would take longer is refused.
    pub limit: Duration,
}

/// Times of one point.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Median of the runs.
    pub median: Duration,
    /// Shortest run.
    pub min: Duration,
    /// Number of runs.
    pub runs: usize,
    /// Most bytes that a run held at once beyond what was held before it, on the host.
    pub peak_bytes: u64,
}

/// A point that would take too long.
#[derive(Debug, thiserror::Error)]
#[error("{runs} runs of {first:.1?} would take longer than the limit of {limit:.0?} (--limit)")]
pub struct TooSlow {
    first: Duration,
    runs: usize,
    limit: Duration,
}

/// Times `run` on what `prepare` makes; only `run` is timed. `run` returns when the device is done, and what it returns
/// is dropped after the clock has stopped.
///
/// # Errors
/// If the first run shows that the point would take longer than the limit.
pub fn measure<Input, Output>(
    effort: &Effort,
    mut prepare: impl FnMut() -> Input,
    mut run: impl FnMut(Input) -> Output,
) -> Result<Timing, TooSlow> {
    let mut timed = |input: Input| {
        let start = Instant::now();
        let output = run(input);
        let time = start.elapsed();
        drop(output);
        time
    };

    let input = prepare();
    let (peak_bytes, first) = peak_bytes(|| timed(input));

    if first * effort.runs as u32 > effort.limit {
        return Err(TooSlow {
            first,
            runs: effort.runs,
            limit: effort.limit,
        });
    }
    let warm_up = Instant::now();
    while warm_up.elapsed() < effort.warm_up {
        timed(prepare());
    }

    let mut other_data = OtherData::new();
    let mut times: Vec<Duration> = Vec::new();
    while times.len() < effort.runs || times.iter().sum::<Duration>() < effort.measured {
        let input = prepare();
        other_data.fill_caches();
        times.push(timed(input));
    }
    times.sort_unstable();
    Ok(Timing {
        median: times[times.len() / 2],
        min: times[0],
        runs: times.len(),
        peak_bytes,
    })
}

/// More than the last-level cache of most CPUs.
struct OtherData(Vec<u64>);

impl OtherData {
    const BYTES: usize = 64 << 20;

    fn new() -> Self {
        Self(vec![0; Self::BYTES / size_of::<u64>()])
    }

    fn fill_caches(&mut self) {
        for word in &mut self.0 {
            *word = word.wrapping_add(1);
        }
        std::hint::black_box(&self.0);
    }
}
