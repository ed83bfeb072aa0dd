//! The `decode` command: times one new token of each sequence against a cache, beside how fast the device copies.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};

use crate::gpu::Gpu;
use crate::harness::Effort;
use crate::problems::Problem;
use crate::session::Session;

/// The catalogue: 1 and 8 sequences of 128k tokens, 16 of 32k, 32 of 8k.
const PROBLEMS: &str = "b1_h32kv8_s131072_d128_bf16_blk64_l16_v8_perkv,\
                        b8_h32kv8_s131072_d128_bf16_blk64_l16_v8_perkv,\
                        b16_h32kv8_s32768_d128_bf16_blk64_l16_v8_perkv,\
                        b32_h32kv8_s8192_d128_bf16_blk64_l16_v8_perkv";

/// Options of `decode`.
#[derive(Debug, clap::Args)]
pub struct DecodeArgs {
    /// Problems by name, whose last token is decoded.
    #[arg(long, value_delimiter = ',', default_value = PROBLEMS)]
    pub problems: Vec<Problem>,
    /// Fewest timed runs.
    #[arg(long, default_value_t = 20)]
    pub runs: usize,
    /// Folder of results; rows go to `decode.jsonl` in `<date>-<device>` below it.
    #[arg(long, default_value = "benches/results")]
    pub results: PathBuf,
    /// The file to add rows to, in place of one below `--results`.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// The id of an earlier run on this machine that these rows belong to; a new one where it is left out.
    #[arg(long)]
    pub run: Option<String>,
    /// The commit that rows name, where this program does not run in its repository.
    #[arg(long)]
    pub commit: Option<String>,
}

/// Times each problem and returns the table; each row is on disk before the next is timed.
///
/// # Errors
/// No device, a problem that it cannot run, and rows that cannot be written.
pub fn run(args: &DecodeArgs) -> anyhow::Result<String> {
    let gpu = Gpu::new(None)?;
    let mut machine = gpu.machine()?;
    if let Some(commit) = &args.commit {
        machine.commit.clone_from(commit);
    }
    let below = args.results.join(machine.folder());
    let mut session = Session {
        run: args.run.clone().unwrap_or_else(|| machine.run_id()),
        path: match &args.out {
            Some(path) => path.clone(),
            None => below.join("decode.jsonl"),
        },
        machine,
        backend: gpu.backend,
        rows: Vec::new(),
    };
    let effort = Effort::gpu(args.runs.max(1), Duration::MAX);
    let copied = gpu.copy_rate(&effort).context("a copy")?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "problem",
        "engine",
        "parts",
        "ms",
        "least",
        "MB",
        "GB/s",
        "of a copy",
    ]);
    for problem in &args.problems {
        let decoded = gpu
            .time_decode(problem, &effort)
            .with_context(|| problem.name.clone())?;
        session.add_decode(problem, &decoded.measured, decoded.pairs)?;
        let timing = decoded.measured.timing;
        let rate = decoded.bytes as f64 / timing.median.as_secs_f64();
        let engine = decoded.measured.engine;
        table.add_row([
            problem.name.clone(),
            engine.map_or(String::new(), |engine| engine.to_string()),
            decoded.splits.to_string(),
            format!("{:.4}", timing.median.as_secs_f64() * 1e3),
            format!("{:.4}", timing.min.as_secs_f64() * 1e3),
            format!("{:.1}", decoded.bytes as f64 / 1e6),
            format!("{:.0}", rate / 1e9),
            format!("{:.0} %", 100.0 * rate / copied),
        ]);
    }
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(format!(
        "{table}\na copy moves {:.0} GB/s; {} rows of run {} added to {}",
        copied / 1e9,
        session.rows.len(),
        session.run,
        session.path.display()
    ))
}
