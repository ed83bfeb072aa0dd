//! The host's part of a call.

use anyhow::{Result, ensure};
use s2_bench::record::{Pass, Row};
use s2_bench::summary::points;

use super::tables::{engine, milliseconds, or_dash, origin};

/// Every point whose host time was taken: the host's time of a call, and the device's of the same call in the same run.
///
/// # Errors
/// Rows of several runs, or without host times.
pub fn host(rows: &[Row]) -> Result<String> {
    let points = points(rows)?;
    let of_pass = |pass: Pass| points.iter().filter(move |row| row.pass == pass);
    ensure!(
        of_pass(Pass::HostForward).count() > 0,
        "no host time is in the run"
    );
    let mut text = String::from(
        "| problem | provider | engine | host, a call | least | device, forward | times |\n|---|---|---|---:|---:|---:|---:|\n",
    );
    for host in of_pass(Pass::HostForward) {
        let device = of_pass(Pass::Forward).find(|row| {
            row.problem == host.problem
                && row.provider == host.provider
                && row.engine == host.engine
                && row.backend == host.backend
        });
        text += &format!(
            "| {} | {} | {} | {:.1} us | {:.1} us | {} | {} |\n",
            host.problem,
            host.provider,
            engine(host),
            host.median_us,
            host.min_us,
            or_dash(device.map(|row| milliseconds(row))),
            host.runs,
        );
    }
    Ok(format!("{text}\n{}", origin(rows)))
}
