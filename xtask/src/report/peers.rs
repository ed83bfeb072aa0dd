//! This library beside everyone else, problem by problem.

use anyhow::{Result, ensure};
use s2_bench::record::{Pass, Row};
use s2_bench::summary::{BURN_MATMUL, S2_ATTENTION, one_run, same_shape};

use super::tables::{milliseconds, or_dash, origin, rate};

/// Every point of this library with the times of all others in the run, and how many times as long they take. Providers
/// without the pattern are shown with the dense problem of the shape.
///
/// # Errors
/// Rows of several runs, or of this library alone.
pub fn peers(rows: &[Row]) -> Result<String> {
    one_run(rows)?;
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        let name = row.provider.as_str();
        if ![S2_ATTENTION, BURN_MATMUL].contains(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    ensure!(!names.is_empty(), "nobody else is in the run");
    let peers: Vec<Peer> = names
        .into_iter()
        .map(|name| Peer::new(rows, name))
        .collect();

    let headers: Vec<String> = peers.iter().map(Peer::header).collect();
    let mut text = format!(
        "| problem | pass | density | ours | TFLOP/s | {} |\n|---|---|---:|---:|---:|{}\n",
        headers.join(" | "),
        "---:|".repeat(peers.len()),
    );
    let is_ours = |row: &&Row| row.provider == S2_ATTENTION && row.pass != Pass::HostForward;
    for ours in rows.iter().filter(is_ours) {
        let cells: Vec<String> = peers.iter().map(|peer| peer.cell(ours)).collect();
        text += &format!(
            "| {} | {} | {:.3} | {} | {} | {} |\n",
            ours.problem,
            ours.pass,
            ours.density,
            milliseconds(ours),
            rate(ours),
            cells.join(" | "),
        );
    }
    Ok(format!("{text}\n{}", origin(rows)))
}

/// The rows of another provider.
struct Peer<'a> {
    name: &'a str,
    rows: Vec<&'a Row>,
    dense_only: bool,
}

impl<'a> Peer<'a> {
    fn new(rows: &'a [Row], name: &'a str) -> Self {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.provider == name).collect();
        Self {
            name,
            dense_only: rows.iter().all(|row| row.is_dense()),
            rows,
        }
    }

    fn header(&self) -> String {
        if self.dense_only {
            format!("{}, dense", self.name)
        } else {
            self.name.to_owned()
        }
    }

    /// Its time, and over ours.
    fn cell(&self, ours: &Row) -> String {
        let row = self.rows.iter().find(|row| {
            let same_problem = row.problem == ours.problem && row.pass == ours.pass;
            same_problem || (self.dense_only && same_shape(row, ours))
        });
        or_dash(row.map(|row| {
            let factor = row.median_us / ours.median_us;
            format!("{} ({factor:.2}x)", milliseconds(row))
        }))
    }
}
