//! Markdown tables.

use s2_bench::record::{Pass, Row};
use s2_bench::summary::{BURN_ATTENTION, BURN_MATMUL, Line, S2_ATTENTION, summarize};

/// A table of one run.
pub enum Table {
    /// Sparse problems, forward and training pass side by side: the short one.
    Speed,
    /// Every point of this library.
    Points,
}

impl Table {
    /// Markdown, with a line on where the numbers come from.
    pub fn render(&self, rows: &[Row]) -> anyhow::Result<String> {
        let lines = summarize(rows, BURN_ATTENTION)?;
        let ours: Vec<&Line> = lines
            .iter()
            .filter(|line| line.row.provider == S2_ATTENTION)
            .collect();
        let table = match self {
            Table::Speed => speed(&ours),
            Table::Points => points(&ours),
        };
        Ok(format!("{table}\n{}", origin(rows)))
    }
}

fn speed(lines: &[&Line]) -> String {
    let mut text = "| length | pattern | attended | forward | over Burn's dense | forward + backward | over Burn's dense | memory | Burn's dense |\n\
                    |---:|---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for line in lines
        .iter()
        .filter(|line| line.row.pass == Pass::Forward && line.row.density < 1.0)
    {
        let row = line.row;
        let training = lines.iter().find(|other| {
            other.row.pass == Pass::ForwardBackward && other.row.problem == row.problem
        });
        text += &format!(
            "| {} | {} | {:.0} % | {} | {} | {} | {} | {} | {} |\n",
            row.seq_kv,
            pattern(row),
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

fn points(lines: &[&Line]) -> String {
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

fn pattern(row: &Row) -> String {
    let heads = if row.heads == row.kv_heads {
        format!("{}", row.heads)
    } else {
        format!("{}/{}", row.heads, row.kv_heads)
    };
    let blocks = match (row.block, row.local_blocks, row.vert_stride) {
        (Some(block), Some(local), Some(stride)) => {
            format!("block {block}, local {local}, stride {stride}")
        }
        _ => row.pattern.clone(),
    };
    format!("{blocks}; {heads} heads of {}", row.head_dim)
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
        "\nMedians of at least {runs} runs, batch {}, {}, on {} ({day}, commit {}, {}).{matmul}\n",
        row.batch,
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
