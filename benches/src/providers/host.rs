//! The host's part of calls through Burn.

use burn::tensor::{Device, Tensor};

use crate::harness::{Effort, Timing, measure_host};

/// Host times of a call, as [`measure_host`] takes them; Burn's queues are emptied with the driver's.
///
/// # Errors
/// A device that fails, and a point that would take too long.
pub fn time<const D: usize>(
    device: &Device,
    effort: &Effort,
    call: impl Fn() -> Tensor<D>,
) -> anyhow::Result<Timing> {
    measure_host(
        effort,
        || Ok(device.sync()?),
        || {
            call();
            Ok(())
        },
        || Ok(device.flush()?),
    )
}
