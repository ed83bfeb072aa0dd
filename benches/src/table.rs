//! The table on the screen.

use comfy_table::{CellAlignment, Table, presets};

use crate::record::Row;
use crate::summary::{
    BURN_MATMUL, Line, MixedRows, S2_ATTENTION, dense_baseline, dense_name, points, summarize,
};

/// The points of a run beside dense attention: those of this library and of everyone who computes the same sparse problems.
///
/// # Errors
/// Rows of more than one run, device or commit.
pub fn render(rows: &[Row]) -> Result<String, MixedRows> {
    let baseline = dense_baseline(rows);
    let lines = summarize(rows, baseline)?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "problem",
        "pass",
        "provider",
        "density",
        "ms",
        "dense ms",
        "speed-up",
        "of ideal",
        "TFLOP/s",
        "of matmul",
        "peak MiB",
    ]);
    for line in lines
        .iter()
        .filter(|line| line.row.provider != baseline || baseline == S2_ATTENTION)
    {
        table.add_row(cells(line));
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n");
    for matmul in points(rows)?
        .iter()
        .filter(|row| row.provider == BURN_MATMUL)
    {
        text += &format!(
            "Burn's {} runs at {} TFLOP/s. ",
            matmul.problem,
            tflops(matmul.useful_tflops)
        );
    }
    text += &format!(
        "Speed-up and dense ms: {}, same shape and pass.\n\
         Of ideal: the provider's own dense time x density, over the time. TFLOP/s: on attended pairs only.",
        dense_name(baseline)
    );
    Ok(text)
}

fn cells(line: &Line) -> [String; 11] {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let row = line.row;
    let provider = match row.engine {
        Some(engine) => format!("{} ({engine})", row.provider),
        None => row.provider.clone(),
    };
    let rate = (!row.pass.is_of_host()).then(|| tflops(row.useful_tflops));
    [
        row.problem.clone(),
        row.pass.to_string(),
        provider,
        format!("{:.3}", row.density),
        milliseconds(row),
        or_dash(line.baseline.map(milliseconds)),
        or_dash(line.speedup.map(|speedup| format!("{speedup:.2}x"))),
        or_dash(line.ideal_share.map(percent)),
        or_dash(rate),
        or_dash(line.matmul_share.map(percent)),
        or_dash(
            row.peak_bytes
                .map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20))),
        ),
    ]
}

/// Three digits at least: times go from microseconds to seconds.
fn milliseconds(row: &Row) -> String {
    let ms = row.median_us / 1e3;
    let decimals = if ms < 10.0 { 3 } else { 1 };
    format!("{ms:.decimals$}")
}

fn tflops(rate: f64) -> String {
    let decimals = if rate < 10.0 { 3 } else { 1 };
    format!("{rate:.decimals$}")
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
