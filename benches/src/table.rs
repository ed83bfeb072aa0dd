//! The table on the screen.

use comfy_table::{CellAlignment, Table, presets};

use crate::record::Row;
use crate::summary::{BURN_ATTENTION, BURN_MATMUL, Line, MixedRuns, S2_ATTENTION, summarize};

/// This library's points beside Burn's dense attention.
///
/// # Errors
/// Rows of more than one run.
pub fn render(rows: &[Row]) -> Result<String, MixedRuns> {
    let lines = summarize(rows, BURN_ATTENTION)?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "problem",
        "pass",
        "density",
        "ms",
        "Burn dense ms",
        "speed-up",
        "of ideal",
        "GFLOP/s",
        "of matmul",
        "peak MiB",
        "Burn MiB",
    ]);
    for line in lines
        .iter()
        .filter(|line| line.row.provider == S2_ATTENTION)
    {
        table.add_row(cells(line));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n");
    if let Some(matmul) = rows.iter().find(|row| row.provider == BURN_MATMUL) {
        text += &format!(
            "Burn's {} runs at {:.1} GFLOP/s. ",
            matmul.problem,
            1e3 * matmul.useful_tflops
        );
    }
    text += "Speed-up: over Burn's dense attention of the same shape and pass (with gradients, its fallback that keeps\n\
             the scores). Of ideal: our own dense time x density, over the time. GFLOP/s: on attended pairs only.";
    Ok(text)
}

fn cells(line: &Line) -> [String; 11] {
    let mebibytes = |row: &Row| {
        row.peak_bytes
            .map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
    };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let row = line.row;
    [
        row.problem.clone(),
        row.pass.to_string(),
        format!("{:.3}", row.density),
        format!("{:.2}", row.median_us / 1e3),
        or_dash(
            line.baseline
                .map(|dense| format!("{:.2}", dense.median_us / 1e3)),
        ),
        or_dash(line.speedup.map(|speedup| format!("{speedup:.2}x"))),
        or_dash(line.ideal_share.map(percent)),
        format!("{:.1}", 1e3 * row.useful_tflops),
        or_dash(line.matmul_share.map(percent)),
        or_dash(mebibytes(row)),
        or_dash(line.baseline.and_then(mebibytes)),
    ]
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
