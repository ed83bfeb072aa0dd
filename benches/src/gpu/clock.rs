//! Times and memory of launches, by the device's own clock and the runtime's own books.

use std::time::Duration;

use anyhow::Context;
use cubecl::client::Client;
use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl::{MemoryScope, calculate_cube_count_elemwise};

use crate::harness::{Effort, Timing, measure_host, sample, within_limit};

/// Bytes that displace what a last-level cache holds: 50 MB is the largest of a GPU so far, and writing this much keeps
/// the device busy while the host launches what is timed.
const FLUSH_BYTES: u64 = 256 << 20;

/// A device, and other data to fill its caches with.
pub struct Clock {
    client: Client,
    other_data: Handle,
    other_len: usize,
}

impl Clock {
    /// A clock of this device.
    pub fn new(client: &Client) -> Self {
        let bytes = FLUSH_BYTES.min(client.properties().memory.max_page_size) as usize;
        let other_len = bytes / size_of::<f32>();
        Self {
            client: client.clone(),
            other_data: client.empty(other_len * size_of::<f32>()),
            other_len,
        }
    }

    /// Device times of a launch, with other data in the caches before each. It must have been launched before: what is
    /// compiled is not timed.
    ///
    /// # Errors
    /// A launch that fails, a device that measures nothing, and a point that would take too long.
    pub fn device(
        &self,
        effort: &Effort,
        peak_bytes: Option<u64>,
        launch: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Timing> {
        within_limit(effort, self.once(&launch)?)?;
        let times = sample(effort, || self.once(&launch))?;
        self.sync()?;
        Ok(Timing::of(times, peak_bytes))
    }

    fn once(&self, launch: &impl Fn() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
        self.fill_caches();
        let window = self.client.profile_start()?;
        if let Err(error) = launch() {
            self.client.profile_abandon(window);
            return Err(error);
        }
        let profile = self.client.profile_end(window)?;
        let ticks = block_on(profile.resolve()).context("the device measured nothing")?;
        Ok(ticks.duration())
    }

    /// Host times of a call, as [`measure_host`] takes them; nothing waits for the device.
    ///
    /// # Errors
    /// A launch that fails, and a point that would take too long.
    pub fn host(
        &self,
        effort: &Effort,
        launch: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Timing> {
        let flush = || Ok(self.client.flush()?);
        measure_host(effort, || self.sync(), launch, flush)
    }

    /// The most bytes that `call` holds at once on the device, with what it returns, beyond what was held before.
    ///
    /// Every allocation gets memory of its own size, which the runtime reuses for that size alone; what it reserved for
    /// them is then what they held at once, page sizes and padding aside.
    ///
    /// # Errors
    /// Those of `call`, and launches that failed on the device.
    pub fn peak_bytes<T: Send>(
        &self,
        call: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<(u64, T)> {
        self.client.memory_cleanup()?;
        let before = self.reserved();
        let kept = self.client.memory_persistent_allocation((), |()| call())?;
        self.sync()?;
        Ok((self.reserved().saturating_sub(before), kept))
    }

    fn reserved(&self) -> u64 {
        let report = self.client.memory_report(MemoryScope::CurrentStream);
        let pools = report.streams.iter().map(|stream| &stream.pools.persistent);
        pools.map(|pool| pool.usage.bytes_reserved).sum()
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(block_on(self.client.sync())?)
    }

    fn fill_caches(&self) {
        let dim = CubeDim::new_1d(256);
        let count = calculate_cube_count_elemwise(&self.client, self.other_len, dim);
        let data = unsafe { BufferArg::from_raw_parts(self.other_data.clone(), self.other_len) };
        add_one::launch(&self.client, count, dim, data);
    }
}

/// Reads and writes all of `data`.
#[cube(launch)]
fn add_one(data: &mut [f32]) {
    if ABSOLUTE_POS < data.len() {
        data[ABSOLUTE_POS] += 1.0;
    }
}
