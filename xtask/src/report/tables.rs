//! Markdown tables.

use std::collections::BTreeMap;

use anyhow::Result;
use s2_bench::record::{Pass, Row};
use s2_bench::summary::{
    BURN_MATMUL, Line, S2_ATTENTION, dense_baseline, dense_name, is_yardstick, points as points_of,
    summarize,
};

use super::series::{pattern, series, sparse, widest};

/// The pattern that was timed at most lengths: forward and training pass side by side.
///
/// # Errors
/// Rows of several runs, or of one length.
pub fn speed(rows: &[Row]) -> Result<String> {
    let baseline = dense_baseline(rows);
    let lines = summarize(rows, baseline)?;
    let chosen = widest(&sparse(&points_of(rows)?), series, |row| row.seq_kv)?;
    let of_series = |line: &&Line| !line.row.is_dense() && series(line.row) == chosen;
    let ours = ours(&lines);
    let fastest = ours.iter().copied().filter(of_series).filter(|line| {
        let beaten = |other: &&Line| is_beaten(line.row, other.row);
        !ours.iter().any(beaten)
    });
    let chosen: Vec<&Line> = fastest.collect();
    let about = format!("{}. {}", of(chosen[0].row), origin(rows));
    let table = speed_table(&chosen, &dense_name(baseline));
    Ok(format!("{table}\n{about}"))
}

/// Every point of this library.
///
/// # Errors
/// Rows of several runs.
pub fn points(rows: &[Row]) -> Result<String> {
    let baseline = dense_baseline(rows);
    let lines = summarize(rows, baseline)?;
    let table = points_table(&ours(&lines), &dense_name(baseline));
    Ok(format!("{table}\n{}", origin(rows)))
}

fn ours<'a>(lines: &'a [Line<'a>]) -> Vec<&'a Line<'a>> {
    lines
        .iter()
        .filter(|line| line.row.provider == S2_ATTENTION)
        .collect()
}

fn speed_table(series: &[&Line], dense: &str) -> String {
    let mut text = format!(
        "| tokens | attended | forward | over {dense} | forward + backward | over {dense} | memory | {dense} |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    for line in series.iter().filter(|line| line.row.pass == Pass::Forward) {
        let row = line.row;
        let training = series.iter().find(|other| {
            other.row.pass == Pass::ForwardBackward && other.row.problem == row.problem
        });
        text += &format!(
            "| {} | {:.0} % | {} | {} | {} | {} | {} | {} |\n",
            row.seq_kv,
            100.0 * row.density,
            milliseconds(row),
            times(line.speedup),
            or_dash(training.map(|line| milliseconds(line.row))),
            times(training.and_then(|line| line.speedup)),
            or_dash(training.and_then(|line| mebibytes(line.row))),
            or_dash(training.and_then(|line| mebibytes(line.baseline?))),
        );
    }
    text
}

fn points_table(lines: &[&Line], dense: &str) -> String {
    let mut text = format!(
        "| problem | pass | engine | density | time | {dense} | speed-up | of ideal | TFLOP/s | of Burn's matmul | runs |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    for line in lines {
        let row = line.row;
        text += &format!(
            "| {} | {} | {} | {:.3} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.problem,
            row.pass,
            engine(row),
            row.density,
            milliseconds(row),
            or_dash(line.baseline.map(milliseconds)),
            times(line.speedup),
            percent(line.ideal_share),
            or_dash((!row.pass.is_of_host()).then(|| rate(row))),
            percent(line.matmul_share),
            row.runs,
        );
    }
    text
}

/// Whether another engine of this library is faster at the point.
pub(super) fn is_beaten(row: &Row, other: &Row) -> bool {
    let point = |row: &Row| (row.provider.clone(), row.problem.clone(), row.pass);
    other.median_us < row.median_us && point(row) == point(other)
}

/// Pattern and heads in a few words.
fn of(row: &Row) -> String {
    let heads = if row.heads == row.kv_heads {
        format!("{} heads", row.heads)
    } else {
        format!("{} query and {} key/value heads", row.heads, row.kv_heads)
    };
    format!(
        "Pattern: {}; batch {}, {heads} of {}",
        pattern(row),
        row.batch,
        row.head_dim
    )
}

/// One sentence on machine, date and versions, from the rows.
pub(super) fn origin(rows: &[Row]) -> String {
    let Some(row) = rows.first() else {
        return String::new();
    };
    let points = points_of(rows).unwrap_or_default();
    // The host's part of a product has no rate.
    let is_rate = |row: &&&Row| row.provider == BURN_MATMUL && !row.pass.is_of_host();
    let matmul = points.iter().find(is_rate).map_or(String::new(), |matmul| {
        format!(
            " Burn's own {} matrix product runs at {} TFLOP/s there.",
            matmul.dtype,
            rate(matmul)
        )
    });
    let versions: BTreeMap<&String, &String> =
        rows.iter().flat_map(|row| row.versions.iter()).collect();
    let versions: Vec<String> = versions
        .into_iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let runs = rows.iter().map(|row| row.runs).min().unwrap_or(0);
    let day = row.date.split('T').next().unwrap_or_default();
    // Those of attention: what they are compared with says its own.
    let attention = rows.iter().filter(|row| !is_yardstick(row));
    let mut dtypes: Vec<String> = attention.map(|row| row.dtype.to_string()).collect();
    dtypes.sort();
    dtypes.dedup();
    format!(
        "Medians of at least {runs} runs, {}, on {} ({day}, commit {}, {}).{matmul}",
        dtypes.join(" and "),
        row.device,
        row.commit,
        versions.join(", "),
    )
}

/// The engine of this library, where the row is of it.
pub(super) fn engine(row: &Row) -> String {
    or_dash(row.engine.map(|engine| engine.to_string()))
}

pub(super) fn milliseconds(row: &Row) -> String {
    let ms = row.median_us / 1e3;
    let decimals = if ms < 1.0 { 3 } else { 2 };
    format!("{ms:.decimals$} ms")
}

/// Useful TFLOP/s, of CPUs as of GPUs.
pub(super) fn rate(row: &Row) -> String {
    let decimals = if row.useful_tflops < 10.0 { 3 } else { 0 };
    format!("{:.decimals$}", row.useful_tflops)
}

pub(super) fn mebibytes(row: &Row) -> Option<String> {
    row.peak_bytes
        .map(|bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)))
}

pub(super) fn times(factor: Option<f64>) -> String {
    or_dash(factor.map(|factor| format!("{factor:.1}x")))
}

pub(super) fn percent(share: Option<f64>) -> String {
    or_dash(share.map(|share| format!("{:.0} %", 100.0 * share)))
}

pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
