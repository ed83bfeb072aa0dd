//! This library beside everyone else, problem by problem.

use std::cmp::Ordering;

use anyhow::{Context, Result, ensure};
use s2_bench::problems::Problem;
use s2_bench::record::{Pass, Row};
use s2_bench::summary::{COPY, Line, S2_ATTENTION, is_yardstick, points, same_shape, summarize};

use super::left_out::List;
use super::tables::{engine, is_beaten, mebibytes, milliseconds, or_dash, origin, percent, rate};

/// Every point of this library with the times of all others in the run, and how many times as long they take. Providers
/// without the pattern are shown with the dense problem of the shape. What is on the list was left out, which a `-` says in a cell
/// and the reasons below the table.
///
/// # Errors
/// Rows of several runs, or of this library alone.
pub fn peers(rows: &[Row], left_out: List) -> Result<String> {
    let peers = everyone_else(rows)?;
    ensure!(!peers.is_empty(), "nobody else is in the run");
    let mut text = format!(
        "| problem | pass | engine | density | ours | of ideal | TFLOP/s | memory |{}\n|---|---|---|---:|---:|---:|---:|---:|{}\n",
        headers(&peers),
        "---:|".repeat(peers.len()),
    );
    let lines = summarize(rows, S2_ATTENTION)?;
    let is_ours = |line: &&Line| line.row.provider == S2_ATTENTION && !line.row.pass.is_of_host();
    for line in lines.iter().filter(is_ours) {
        let ours = line.row;
        text += &format!(
            "| {} | {} | {} | {:.3} | {} | {} | {} | {} |{}\n",
            ours.problem,
            ours.pass,
            engine(ours),
            ours.density,
            milliseconds(ours),
            percent(line.ideal_share),
            rate(ours),
            or_dash(mebibytes(ours)),
            cells(&peers, |peer| {
                peer.time(ours)
                    .unwrap_or_else(|| left_out.mark(peer.name, peer.dense_only, ours).to_owned())
            }),
        );
    }
    Ok(format!(
        "{text}\n{}\n\n{}",
        origin(rows),
        left_out.reasons(rows)
    ))
}

/// The most that each point of this library holds beyond its inputs, beside everyone else's, with ratios.
///
/// # Errors
/// Rows of several runs, or of this library alone.
pub fn memory(rows: &[Row]) -> Result<String> {
    let peers = everyone_else(rows)?;
    ensure!(!peers.is_empty(), "nobody else is in the run");
    let mut text = format!(
        "| problem | pass | engine | density | ours |{}\n|---|---|---|---:|---:|{}\n",
        headers(&peers),
        "---:|".repeat(peers.len()),
    );
    let points = points(rows)?;
    let is_ours = |row: &&&Row| row.provider == S2_ATTENTION && row.peak_bytes.is_some();
    for &ours in points.iter().filter(is_ours) {
        text += &format!(
            "| {} | {} | {} | {:.3} | {} |{}\n",
            ours.problem,
            ours.pass,
            engine(ours),
            ours.density,
            or_dash(mebibytes(ours)),
            cells(&peers, |peer| or_dash(peer.memory(ours))),
        );
    }
    Ok(format!("{text}\n{}", origin(rows)))
}

/// One problem of blocks, that which most others were timed at, and of such the longest: a line for each provider, the fastest
/// first.
///
/// # Errors
/// Rows of several runs, of this library alone, or without blocks.
pub fn headline(rows: &[Row]) -> Result<String> {
    let peers = everyone_else(rows)?;
    let points = points(rows)?;
    let is_ours = |row: &&&Row| {
        row.provider == S2_ATTENTION
            && row.block.is_some()
            && !row.pass.is_of_host()
            && !points.iter().any(|other| is_beaten(row, other))
    };
    let times = |ours: &Row| peers.iter().filter(|peer| peer.row(ours).is_some()).count();
    let of_problem = |problem: &str| -> Vec<&Row> {
        let ours = points.iter().filter(is_ours).copied();
        ours.filter(|row| row.problem == problem).collect()
    };
    let others = |row: &Row| -> usize {
        let passes = of_problem(&row.problem);
        passes.into_iter().map(times).sum()
    };
    let chosen = points.iter().filter(is_ours);
    let chosen = chosen.max_by_key(|row| (others(row), row.seq_kv, row.head_dim));
    let chosen = chosen.context("no problem of blocks is in the run")?;
    ensure!(others(chosen) > 0, "nobody else is in the run");
    let ours = of_problem(&chosen.problem);

    let passes: Vec<String> = ours.iter().map(|row| format!(" {} |", row.pass)).collect();
    let own: Vec<String> = ours
        .iter()
        .map(|row| format!(" **{}** |", milliseconds(row)))
        .collect();
    let mut text = format!(
        "| |{}\n|---|{}\n| **{S2_ATTENTION}** |{}\n",
        passes.concat(),
        "---:|".repeat(ours.len()),
        own.concat(),
    );
    let mut lines: Vec<&Peer> = peers.iter().filter(|peer| peer.is_beside(&ours)).collect();
    let first = |peer: &&Peer| ours.iter().find_map(|row| Some(peer.row(row)?.median_us));
    lines.sort_by(|a, b| first(a).partial_cmp(&first(b)).unwrap_or(Ordering::Equal));
    for peer in lines {
        let cells = ours
            .iter()
            .map(|row| format!(" {} |", or_dash(peer.time(row))));
        text += &format!("| {} |{}\n", peer.header(), cells.collect::<String>());
    }
    // Runs may have problems of other types, of which nothing is shown here.
    let of_its_type = rows.iter().filter(|row| row.dtype == chosen.dtype);
    let of_its_type: Vec<Row> = of_its_type.cloned().collect();
    Ok(format!(
        "{text}\n`{}`: {}, {:.1} % of all pairs. {}",
        chosen.problem,
        chosen.pattern,
        100.0 * chosen.density,
        origin(&of_its_type)
    ))
}

/// Decode of this library: how fast it reads what it must, also beside a copy, and the times of all others as [`peers`] has
/// them.
///
/// # Errors
/// Rows of several runs, without decode, or without the copy of their run; problems that have no name.
pub fn decode(rows: &[Row]) -> Result<String> {
    let peers = everyone_else(rows)?;
    let points = points(rows)?;
    let copy = points.iter().find(|row| row.provider == COPY);
    let copy = copy.context("no row of a copy is in the run")?;
    let copied = copy.copied_bytes() as f64 / copy.median_us;
    let mut text = format!(
        "| problem | density | ours | GB/s | of a copy |{}\n|---|---:|---:|---:|---:|{}\n",
        headers(&peers),
        "---:|".repeat(peers.len()),
    );
    let is_ours = |row: &&Row| row.provider == S2_ATTENTION && row.pass == Pass::Decode;
    let decoded: Vec<&Row> = points.iter().copied().filter(is_ours).collect();
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
            cells(&peers, |peer| or_dash(peer.time(ours))),
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
    let rows = points(rows)?;
    let mut names: Vec<&str> = Vec::new();
    for row in &rows {
        let name = row.provider.as_str();
        if name != S2_ATTENTION && !is_yardstick(row) && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names
        .into_iter()
        .map(|name| Peer::new(&rows, name))
        .collect())
}

fn headers(peers: &[Peer]) -> String {
    let headers = peers.iter().map(|peer| format!(" {} |", peer.header()));
    headers.collect()
}

fn cells<'a>(peers: &[Peer<'a>], cell: impl Fn(&Peer<'a>) -> String) -> String {
    let cells = peers.iter().map(|peer| format!(" {} |", cell(peer)));
    cells.collect()
}

/// The rows of another provider.
struct Peer<'a> {
    name: &'a str,
    rows: Vec<&'a Row>,
    dense_only: bool,
}

impl<'a> Peer<'a> {
    fn new(rows: &[&'a Row], name: &'a str) -> Self {
        let rows = rows.iter().copied().filter(|row| row.provider == name);
        let rows: Vec<&Row> = rows.collect();
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

    /// Its row beside ours.
    fn row(&self, ours: &Row) -> Option<&'a Row> {
        self.rows.iter().copied().find(|row| {
            let same_problem = row.problem == ours.problem && row.pass == ours.pass;
            same_problem || (self.dense_only && same_shape(row, ours))
        })
    }

    fn is_beside(&self, ours: &[&Row]) -> bool {
        ours.iter().any(|row| self.row(row).is_some())
    }

    /// Its memory, and over ours.
    fn memory(&self, ours: &Row) -> Option<String> {
        let row = self.row(ours)?;
        let factor = row.peak_bytes? as f64 / ours.peak_bytes? as f64;
        Some(format!("{} ({factor:.2}x)", mebibytes(row)?))
    }

    /// Its time, and over ours.
    fn time(&self, ours: &Row) -> Option<String> {
        let row = self.row(ours)?;
        let factor = row.median_us / ours.median_us;
        Some(format!("{} ({factor:.2}x)", milliseconds(row)))
    }
}
