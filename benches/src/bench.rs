//! The `bench` command: problems x providers x passes, a row for each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};

use crate::harness::{Effort, Timing};
use crate::machine::Machine;
use crate::problems::{self, Problem, SETS, Shape};
use crate::providers::{self, Attention, Matmul};
use crate::record::{Backend, Dtype, Pass, Row};
use crate::summary::BURN_MATMUL;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What to run on.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    pub backend: Backend,
    /// Sets of problems, or parts of problem names, separated by commas; see `problems`. Rows of a set go to
    /// `<set>.jsonl`, others to `selection.jsonl`, which is not kept.
    #[arg(long, default_value = "cpu")]
    pub problems: String,
    /// Passes to time, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Pass::Forward, Pass::Backward, Pass::ForwardBackward])]
    pub passes: Vec<Pass>,
    /// The set `quick`, 5 runs each: a look, not a measurement. Rows go to `quick.jsonl`, which is not kept.
    #[arg(long, conflicts_with = "problems")]
    pub quick: bool,
    /// Fewest timed runs of each point.
    #[arg(long, default_value_t = 20)]
    pub runs: usize,
    /// Leave out points whose fewest runs would take more seconds than this.
    #[arg(long, default_value_t = 120.0)]
    pub limit: f64,
    /// Folder of results; rows go to a file in `<date>-<device>` below it.
    #[arg(long, default_value = "benches/results")]
    pub results: PathBuf,
}

/// What a run leaves.
pub struct Outcome {
    /// The rows, as written.
    pub rows: Vec<Row>,
    /// Where they were added.
    pub path: PathBuf,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Sides of the yardstick matrices.
const MATMUL_SIZE: usize = 4096;

/// Times everything; each row is on disk before the next point is timed.
///
/// # Errors
/// Problems or backends that do not exist, and results that cannot be written.
pub fn run(args: &BenchArgs) -> anyhow::Result<Outcome> {
    let (selection, runs) = if args.quick {
        ("quick", args.runs.min(5))
    } else {
        (args.problems.as_str(), args.runs)
    };
    anyhow::ensure!(runs > 0, "--runs 0: at least 1 is accepted");
    let effort = Effort {
        runs,
        warm_up: Duration::from_millis(200),
        measured: Duration::from_millis(500),
        limit: Duration::try_from_secs_f64(args.limit).context("--limit")?,
    };
    let problems = problems::select(selection)?;
    let device = providers::device(args.backend)?;
    let machine = Machine::cpu()?;
    let mut session = Session {
        run: machine.run_id(),
        path: args
            .results
            .join(machine.folder())
            .join(file_name(selection)),
        machine,
        backend: args.backend,
        rows: Vec::new(),
    };
    let points = points(&problems, &args.passes);
    let bar = progress_bar(points.len() as u64 + 1);
    let mut notes = Vec::new();

    session.time_matmul(&bar, &device, &effort, problems[0].shape.dtype, &mut notes)?;
    for (problem, provider, pass) in points {
        bar.set_message(format!("{} {} {pass}", provider.name(), problem.name));
        let free = session.machine.free_bytes;
        match provider.time(problem, pass, &device, &effort, free) {
            Ok(timing) => session.add_attention(problem, provider, pass, &timing)?,
            Err(reason) => notes.push(format!(
                "{} {} {pass}: {reason}",
                provider.name(),
                problem.name
            )),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Outcome {
        rows: session.rows,
        path: session.path,
        notes,
    })
}

/// A point for each pass and for each provider that computes the problem, neighbours in time where they are compared.
fn points<'a>(problems: &'a [Problem], passes: &[Pass]) -> Vec<(&'a Problem, Attention, Pass)> {
    let mut points = Vec::new();
    for problem in problems {
        for &pass in passes {
            for provider in [Attention::Burn, Attention::S2] {
                if provider.computes(problem) {
                    points.push((problem, provider, pass));
                }
            }
        }
    }
    points
}

/// Sets have files of their own; anything else goes to one that is not kept.
fn file_name(selection: &str) -> String {
    let set = SETS.iter().find(|set| set.name == selection);
    format!("{}.jsonl", set.map_or("selection", |set| set.name))
}

fn progress_bar(points: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {pos}/{len} points, {elapsed} (about {eta} left)  {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(points).with_style(style);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// The rows of one run.
struct Session {
    run: String,
    path: PathBuf,
    machine: Machine,
    backend: Backend,
    rows: Vec<Row>,
}

impl Session {
    fn time_matmul(
        &mut self,
        bar: &ProgressBar,
        device: &Device,
        effort: &Effort,
        dtype: Dtype,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let matmul = Matmul {
            size: MATMUL_SIZE,
            dtype,
        };
        bar.set_message(format!("{BURN_MATMUL} {}", matmul.problem()));
        match matmul.time(device, effort) {
            Ok(timing) => {
                // Two matrices are two sequences that attend each other with one product in place of two.
                let shape = Shape {
                    batch: 1,
                    heads: 1,
                    kv_heads: 1,
                    seq: matmul.size,
                    head_dim: matmul.size,
                    dtype,
                };
                let row = self.row(shape, Pass::Forward, &timing, matmul.flops());
                self.add(Row {
                    provider: BURN_MATMUL.to_owned(),
                    problem: matmul.problem(),
                    pattern: "matrix product".to_owned(),
                    ..row
                })?;
            }
            Err(reason) => notes.push(format!("{BURN_MATMUL} {}: {reason}", matmul.problem())),
        }
        bar.inc(1);
        Ok(())
    }

    fn add_attention(
        &mut self,
        problem: &Problem,
        provider: Attention,
        pass: Pass,
        timing: &Timing,
    ) -> anyhow::Result<()> {
        let report = problem.report()?;
        let flops = problem
            .useful_flops(pass)?
            .context("a pass of attention has useful operations")?;
        let row = self.row(problem.shape, pass, timing, flops);
        self.add(Row {
            provider: provider.name().to_owned(),
            engine: provider.engine(),
            problem: problem.name.clone(),
            block: (!problem.is_dense()).then_some(problem.pattern.block_size),
            local_blocks: problem.local_stride().map(|(local_blocks, _)| local_blocks),
            vert_stride: problem.local_stride().map(|(_, vert_stride)| vert_stride),
            causal: true,
            pattern: report.pattern,
            density: report.density,
            ..row
        })
    }

    /// What all rows share; a dense row of no engine.
    fn row(&self, shape: Shape, pass: Pass, timing: &Timing, flops: f64) -> Row {
        let machine = &self.machine;
        Row {
            run: self.run.clone(),
            provider: String::new(),
            engine: None,
            backend: self.backend,
            problem: String::new(),
            pass,
            dtype: shape.dtype,
            batch: shape.batch,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            seq_q: shape.seq,
            seq_kv: shape.seq,
            head_dim: shape.head_dim,
            block: None,
            local_blocks: None,
            vert_stride: None,
            causal: false,
            pattern: String::new(),
            median_us: timing.median.as_secs_f64() * 1e6,
            min_us: timing.min.as_secs_f64() * 1e6,
            runs: timing.runs,
            peak_bytes: Some(timing.peak_bytes),
            density: 1.0,
            useful_tflops: flops / timing.median.as_secs_f64() / 1e12,
            device: machine.device.clone(),
            driver: machine.driver.clone(),
            date: machine.date.clone(),
            commit: machine.commit.clone(),
            versions: machine.versions.clone(),
        }
    }

    fn add(&mut self, row: Row) -> anyhow::Result<()> {
        row.append(Path::new(&self.path))?;
        self.rows.push(row);
        Ok(())
    }
}
