//! The `decode` command: times one new token of each sequence against a cache, beside how fast the device copies, and beside
//! others.

use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};

use crate::catalogue::with_dense_twins;
use crate::gpu::Gpu;
use crate::harness::Effort;
use crate::output::Output;
use crate::peers::Who;
use crate::problems::Problem;
use crate::providers::Provider;
use crate::record::{Pass, Row};
use crate::session::Session;

/// The catalogue: 1 and 8 sequences of 128k tokens, 16 of 32k, 32 of 8k.
const PROBLEMS: &str = "b1_h32kv8_s131072_d128_bf16_blk64_l16_v8_perkv,\
                        b8_h32kv8_s131072_d128_bf16_blk64_l16_v8_perkv,\
                        b16_h32kv8_s32768_d128_bf16_blk64_l16_v8_perkv,\
                        b32_h32kv8_s8192_d128_bf16_blk64_l16_v8_perkv";

/// A point of another provider may take this long: what hangs ends.
const LIMIT: Duration = Duration::from_secs(120);

/// Options of `decode`.
#[derive(Debug, clap::Args)]
pub struct DecodeArgs {
    /// Problems by name, whose last token is decoded. Dense providers are timed at the dense problem of the same shape.
    #[arg(long, value_delimiter = ',', default_value = PROBLEMS)]
    pub problems: Vec<Problem>,
    /// Who is timed.
    #[command(flatten)]
    pub who: Who,
    /// Fewest timed runs.
    #[arg(long, default_value_t = 20)]
    pub runs: usize,
    /// Where rows go.
    #[command(flatten)]
    pub output: Output,
}

/// Times each problem and returns the table; each row is on disk before the next is timed.
///
/// # Errors
/// No device, a problem that it cannot run, and rows that cannot be written.
pub fn run(args: &DecodeArgs) -> anyhow::Result<String> {
    let providers = args.who.chosen(&[Provider::S2], &Provider::DECODE_PEERS);
    let decodes = |who: &Provider| *who == Provider::S2 || Provider::DECODE_PEERS.contains(who);
    if let Some(who) = providers.iter().find(|who| !decodes(who)) {
        let peers = Provider::DECODE_PEERS.map(Provider::name).join(", ");
        bail!(
            "--providers {}: accepted for decode are {}, {peers}",
            who.name(),
            Provider::S2.name()
        );
    }
    let gpu = Gpu::new(None)?;
    let machine = args.output.of(gpu.machine()?);
    let mut session = Session::start(
        args.output.run_id(&machine),
        args.output.path(&machine, "decode.jsonl"),
        machine,
        gpu.backend,
    )?;
    let effort = Effort::gpu(args.runs.max(1), LIMIT);
    let (elements, copy) = gpu.time_copy(&effort).context("a copy")?;
    session.add_copy(elements, &copy)?;

    let mut splits = Vec::new();
    if providers.contains(&Provider::S2) {
        for problem in &args.problems {
            let decoded = gpu
                .time_decode(problem, &effort)
                .with_context(|| problem.name.clone())?;
            session.add_attention(Provider::S2, problem, Pass::Decode, &decoded.measured)?;
            splits.push(decoded.splits);
        }
    }
    let problems = with_dense_twins(args.problems.clone());
    let peers = providers.iter().filter(|who| **who != Provider::S2);
    for &provider in peers {
        let computed = problems.iter().filter(|of| provider.computes(of));
        let points: Vec<_> = computed.map(|problem| (problem, Pass::Decode)).collect();
        if !points.is_empty() {
            let script = args.who.script();
            script.add_rows(provider, &points, &effort, &mut session, |_| ())?;
        }
    }

    let mut text = format!("{}\n", table(&session.rows, &problems, &splits)?);
    for note in &session.notes {
        text += &format!("left out: {note}\n");
    }
    Ok(format!(
        "{text}{} rows of run {} added to {}",
        session.rows.len(),
        session.run,
        session.path.display()
    ))
}

/// The rows of a copy, of this library, whose lists of pages are read in `splits` parts, and of others, in this order.
fn table(rows: &[Row], problems: &[Problem], splits: &[usize]) -> anyhow::Result<Table> {
    let rate = |row: &Row, bytes: u64| bytes as f64 / row.median_us / 1e3;
    let mut copied = f64::NAN;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "problem",
        "provider",
        "parts",
        "ms",
        "least",
        "MB",
        "GB/s",
        "of a copy",
    ]);
    let mut splits = splits.iter();
    for row in rows {
        let bytes = match problems.iter().find(|problem| problem.name == row.problem) {
            Some(problem) => problem.last_token()?.bytes,
            None => {
                copied = rate(row, row.copied_bytes());
                row.copied_bytes()
            }
        };
        let (provider, parts) = match row.engine {
            Some(engine) => (format!("{} ({engine})", row.provider), splits.next()),
            None => (row.provider.clone(), None),
        };
        table.add_row([
            row.problem.clone(),
            provider,
            parts.map_or("-".to_owned(), ToString::to_string),
            format!("{:.4}", row.median_us / 1e3),
            format!("{:.4}", row.min_us / 1e3),
            format!("{:.1}", bytes as f64 / 1e6),
            format!("{:.0}", rate(row, bytes)),
            format!("{:.0} %", 100.0 * rate(row, bytes) / copied),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(table)
}
