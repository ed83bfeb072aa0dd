//! Markdown tables.

use anyhow::Result;
use s2_bench::record::{Pass, Row};
use s2_bench::summary::{BURN_ATTENTION, BURN_MATMUL, Line, S2_ATTENTION, summarize};

use super::series::{family, pattern, widest};

/// The pattern that was timed at most lengths: forward and training pass side by side.
///
/// # Errors
/// Rows of several runs, or of one length.
pub fn speed(rows: &[Row]) -> Result<String> {
    let lines = summarize(rows, BURN_ATTENTION)?;
    let key = |row: &Row| (family(row), row.block, row.local_blocks, row.vert_stride);
    let sparse: Vec<Row> = rows
        .iter()
        .filter(|row| row.density < 1.0)
        .cloned()
        .collect();
    let chosen = widest(&sparse, key, |row| row.seq_kv)?;
    let series: Vec<&Line> = ours(&lines)
        .into_iter()
        .filter(|line| key(line.row) == chosen)
        .collect();
    let about = format!("{}. {}", of(series[0].row), origin(rows));
    Ok(format!("{}\n{about}", speed_table(&series)))
}

/// Every point of this library.
///
/// # Errors
/// Rows of several runs.
pub fn points(rows: &[Row]) -> Result<String> {
    let lines = summarize(rows, BURN_ATTENTION)?;
    Ok(format!("{}\n{}", points_table(&ours(&lines)), origin(rows)))
}

fn ours<'a>(lines: &'a [Line<'a>]) -> Vec<&'a Line<'a>> {
    lines
        .iter()
        .filter(|line| line.row.provider == S2_ATTENTION)
        .collect()
}

fn speed_table(series: &[&Line]) -> String {
    let mut text = "| tokens | attended | forward | over Burn's dense | forward + backward | over Burn's dense | memory | Burn's dense |\n\
                    |---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
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

fn points_table(lines: &[&Line]) -> String {
    let mut text = "| problem | pass | density | ms | Burn dense ms | speed-up | of ideal | GFLOP/s | of Burn's matmul | runs |\n\
                    |---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for line in lines {
        let row = line.row;
        text += &format!(
            "| {} | {} | {:.3} | {} | {} | {} | {} | {:.1} | {} | {} |\n",
            row.problem,
            row.pass,
            row.density,
            milliseconds(row),
            or_dash(line.baseline.map(milliseconds)),
            times(line.speedup),
            percent(line.ideal_share),
            1e3 * row.useful_tflops,
            percent(line.matmul_share),
            row.runs,
        );
    }
    text
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
fn origin(rows: &[Row]) -> String {
    let Some(row) = rows.first() else {
        return String::new();
    };
    let matmul = rows.iter().find(|row| row.provider == BURN_MATMUL);
    let matmul = matmul.map_or(String::new(), |matmul| {
        format!(
            " Burn's own {} matrix product runs at {:.0} GFLOP/s there.",
            matmul.dtype,
            1e3 * matmul.useful_tflops
        )
    });
    let versions: Vec<String> = row
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let runs = rows.iter().map(|row| row.runs).min().unwrap_or(0);
    let day = row.date.split('T').next().unwrap_or_default();
    format!(
        "Medians of at least {runs} runs, {}, on {} ({day}, commit {}, {}).{matmul}",
        row.dtype,
        row.device,
        row.commit,
        versions.join(", "),
    )
}

fn milliseconds(row: &Row) -> String {
    format!("{:.2} ms", row.median_us / 1e3)
}

fn mebibytes(row: &Row) -> Option<String> {
    row.peak_bytes
        .map(|bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)))
}

fn times(factor: Option<f64>) -> String {
    or_dash(factor.map(|factor| format!("{factor:.1}x")))
}

fn percent(share: Option<f64>) -> String {
    or_dash(share.map(|share| format!("{:.0} %", 100.0 * share)))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
