//! The host's part of a call.

use anyhow::{Result, ensure};
use s2_bench::record::{Pass, Row};
use s2_bench::summary::points;

use super::tables::{engine, milliseconds, or_dash, origin};

/// Every point whose host time was taken, by the kernels alone or through Burn: the host's time of a call, and the device's of the
/// same call in the same run.
///
/// # Errors
/// Rows of several runs, or without host times.
pub fn host(rows: &[Row]) -> Result<String> {
    let points = points(rows)?;
    let of_host = || points.iter().filter(|row| row.pass.is_of_host());
    ensure!(of_host().count() > 0, "no host time is in the run");
    let mut text = String::from(
        "| problem | provider | engine | call | host, a call | least | device, forward | times |\n|---|---|---|---|---:|---:|---:|---:|\n",
    );
    for host in of_host() {
        let device = points.iter().find(|row| {
            row.pass == Pass::Forward
                && row.problem == host.problem
                && row.provider == host.provider
                && row.engine == host.engine
                && row.backend == host.backend
        });
        text += &format!(
            "| {} | {} | {} | {} | {:.1} us | {:.1} us | {} | {} |\n",
            host.problem,
            host.provider,
            engine(host),
            match host.pass {
                Pass::HostOperation => "through Burn",
                _ => "kernels alone",
            },
            host.median_us,
            host.min_us,
            or_dash(device.map(|row| milliseconds(row))),
            host.runs,
        );
    }
    Ok(format!("{text}\n{}", origin(rows)))
}
