//! Timing: warm-up, then the median of many runs.
//!
//! Between runs the caches are filled with other data, so that inputs come from memory as they do in a model. This is the
//! loop, and the wall clock around a call that waits for the device, which is right for the CPU. GPUs have a clock of
//! their own: `gpu` runs the same loop on it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::memory::peak_bytes;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Fewest timed runs.
    pub runs: usize,
    /// Calls before the one whose time says how long a point would take: compiling and tuning are in them.
    pub untimed: usize,
    /// Time before the first timed run is used.
    pub warm_up: Duration,
    /// Runs go on until this much time is measured, or [`MOST_RUNS`] are done.
    pub measured: Duration,
    /// A point whose fewest runs would take longer is refused.
    pub limit: Duration,
}

/// More runs than these tell nothing more.
pub const MOST_RUNS: usize = 1000;

impl Effort {
    /// For calls of milliseconds on a CPU.
    pub fn cpu(runs: usize, limit: Duration) -> Self {
        Self {
            runs,
            untimed: 0,
            warm_up: Duration::from_millis(200),
            measured: Duration::from_millis(500),
            limit,
        }
    }

    /// For calls of microseconds on a GPU, whose kernels are compiled and tuned when they are first called.
    pub fn gpu(runs: usize, limit: Duration) -> Self {
        Self {
            untimed: 1,
            warm_up: Duration::from_millis(50),
            measured: Duration::from_millis(100),
            ..Self::cpu(runs, limit)
        }
    }
}

/// Times of one point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Median of the runs.
    pub median: Duration,
    /// Shortest run.
    pub min: Duration,
    /// Number of runs.
    pub runs: usize,
    /// Most bytes that a run held at once beyond what was held before it; `None` where that cannot be known.
    pub peak_bytes: Option<u64>,
}

impl Timing {
    /// Of at least one run.
    pub fn of(mut times: Vec<Duration>, peak_bytes: Option<u64>) -> Self {
        times.sort_unstable();
        Self {
            median: times[times.len() / 2],
            min: times[0],
            runs: times.len(),
            peak_bytes,
        }
    }
}

/// A point that would take too long.
#[derive(Debug, thiserror::Error)]
#[error("{runs} runs of {first:.1?} would take longer than the limit of {limit:.0?} (--limit)")]
pub struct TooSlow {
    first: Duration,
    runs: usize,
    limit: Duration,
}

/// Refuses a point by the time of one run.
///
/// # Errors
/// If the fewest runs would take longer than the limit.
pub fn within_limit(effort: &Effort, first: Duration) -> Result<(), TooSlow> {
    if first * effort.runs as u32 > effort.limit {
        return Err(TooSlow {
            first,
            runs: effort.runs,
            limit: effort.limit,
        });
    }
    Ok(())
}

/// The times of runs that clock themselves: warm-up, then as many as `effort` asks for.
///
/// # Errors
/// The first that a run returns.
pub fn sample<Error>(
    effort: &Effort,
    mut run: impl FnMut() -> Result<Duration, Error>,
) -> Result<Vec<Duration>, Error> {
    let warm_up = Instant::now();
    while warm_up.elapsed() < effort.warm_up {
        run()?;
    }
    let (mut times, mut sum) = (Vec::new(), Duration::ZERO);
    while times.len() < effort.runs || (sum < effort.measured && times.len() < MOST_RUNS) {
        let time = run()?;
        sum += time;
        times.push(time);
    }
    Ok(times)
}

/// Host times that are taken.
const HOST_RUNS: usize = 1000;

/// Calls that follow each other while the host is timed, as those of a model do: queues to the device have room for them.
const HOST_CALLS: usize = 16;

/// Host times of a call among 16 that follow each other, until `flush` has given the driver the last; before the first,
/// `wait` waits for the device. A tenth as many calls as are timed come first and are not.
///
/// # Errors
/// The first that one of them returns, and a point that would take too long, the device's part with it.
pub fn measure_host<Error: From<TooSlow>>(
    effort: &Effort,
    wait: impl Fn() -> Result<(), Error>,
    call: impl Fn() -> Result<(), Error>,
    flush: impl Fn() -> Result<(), Error>,
) -> Result<Timing, Error> {
    let run = || -> Result<Duration, Error> {
        wait()?;
        let start = Instant::now();
        for _ in 0..HOST_CALLS {
            call()?;
        }
        flush()?;
        Ok(start.elapsed() / HOST_CALLS as u32)
    };
    // What is compiled or tuned at a first call is not timed, nor held to the limit.
    run()?;
    wait()?;
    let first = Instant::now();
    run()?;
    wait()?;
    let effort = Effort {
        runs: HOST_RUNS,
        ..*effort
    };
    within_limit(&effort, first.elapsed())?;
    for _ in 0..HOST_RUNS / 10 {
        run()?;
    }
    let times: Result<_, _> = (0..HOST_RUNS).map(|_| run()).collect();
    wait()?;
    Ok(Timing::of(times?, None))
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
    for _ in 0..effort.untimed {
        timed(prepare());
    }
    let input = prepare();
    let (peak_bytes, first) = peak_bytes(|| timed(input));
    within_limit(effort, first)?;

    let mut other_data = OtherData::new();
    let times = sample(effort, || {
        let input = prepare();
        other_data.fill_caches();
        Ok(timed(input))
    })?;
    Ok(Timing::of(times, Some(peak_bytes)))
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
