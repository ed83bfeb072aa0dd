//! This library beside everyone else, problem by problem.

use anyhow::{Context, Result, ensure};
use s2_bench::problems::Problem;
use s2_bench::record::{Pass, Row};
use s2_bench::summary::{COPY, S2_ATTENTION, is_yardstick, one_run, same_shape};

use super::tables::{milliseconds, or_dash, origin, rate};

/// Every point of this library with the times of all others in the run, and how many times as long they take. Providers
/// without the pattern are shown with the dense problem of the shape.
///
/// # Errors
/// Rows of several runs, or of this library alone.
pub fn peers(rows: &[Row]) -> Result<String> {
    let peers = everyone_else(rows)?;
    ensure!(!peers.is_empty(), "nobody else is in the run");
    let mut text = format!(
        "| problem | pass | density | ours | TFLOP/s |{}\n|---|---|---:|---:|---:|{}\n",
        headers(&peers),
        "---:|".repeat(peers.len()),
    );
    let is_ours = |row: &&Row| row.provider == S2_ATTENTION && row.pass != Pass::HostForward;
    for ours in rows.iter().filter(is_ours) {
        text += &format!(
            "| {} | {} | {:.3} | {} | {} |{}\n",
            ours.problem,
            ours.pass,
            ours.density,
            milliseconds(ours),
            rate(ours),
            cells(&peers, ours),
        );
    }
    Ok(format!("{text}\n{}", origin(rows)))
}

/// Decode of this library: how fast it reads what it must, also beside a copy, and the times of all others as [`peers`] has
/// them.
///
/// # Errors
/// Rows of several runs, without decode, or without the copy of their run; problems that have no name.
pub fn decode(rows: &[Row]) -> Result<String> {
    let peers = everyone_else(rows)?;
    let copy = rows.iter().find(|row| row.provider == COPY);
    let copy = copy.context("no row of a copy is in the run")?;
    let copied = copy.copied_bytes() as f64 / copy.median_us;
    let mut text = format!(
        "| problem | density | ours | GB/s | of a copy |{}\n|---|---:|---:|---:|---:|{}\n",
        headers(&peers),
        "---:|".repeat(peers.len()),
    );
    let is_ours = |row: &&Row| row.provider == S2_ATTENTION && row.pass == Pass::Decode;
    let decoded: Vec<&Row> = rows.iter().filter(is_ours).collect();
    ensure!(
        !decoded.is_empty(),
        "no decode of this library is in the run"
    );
    for ours in decoded {
        let problem: Problem = ours.problem.parse()?;
        let read = problem.last_token()?.bytes as f64 / ours.median_us;
        text += &format!(
            "| {} | {:.3} | {} | {:.0} | {:.0} % |{}\n",
            ours.problem,
            ours.density,
            milliseconds(ours),
            read / 1e3,
            100.0 * read / copied,
            cells(&peers, ours),
        );
    }
    Ok(format!(
        "{text}\nA copy moves {:.0} GB/s there. {}",
        copied / 1e3,
        origin(rows)
    ))
}

/// Everyone else in a run, in the order of the rows.
fn everyone_else(rows: &[Row]) -> Result<Vec<Peer<'_>>> {
    one_run(rows)?;
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        let name = row.provider.as_str();
        if name != S2_ATTENTION && !is_yardstick(row) && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names
        .into_iter()
        .map(|name| Peer::new(rows, name))
        .collect())
}

fn headers(peers: &[Peer]) -> String {
    let headers = peers.iter().map(|peer| format!(" {} |", peer.header()));
    headers.collect()
}

fn cells(peers: &[Peer], ours: &Row) -> String {
    let cells = peers.iter().map(|peer| format!(" {} |", peer.cell(ours)));
    cells.collect()
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
