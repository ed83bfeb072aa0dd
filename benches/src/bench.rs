//! The `bench` command: problems x providers x passes, a row for each.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::catalogue::{self, SETS};
use crate::harness::Effort;
use crate::output::Output;
use crate::peers::{Script, Who};
use crate::problems::Problem;
use crate::providers::{Matmul, Provider, Rig};
use crate::record::{Backend, Engine, Pass, Record, Row};
use crate::session::Session;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What to run on: the CPU where it is left out, or the GPU that this program is built for.
    #[arg(long, value_enum)]
    pub backend: Option<Backend>,
    /// The engine of this library that is timed on a GPU: `wgmma`, `mma` or `unit`; its own choice for each call where it is left
    /// out. Points that the engine does not run are left out.
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// Sets of problems, their names, or parts of names, separated by commas; see `problems`. The set `cpu` or `gpu` where
    /// it is left out. Rows of a set go to `<set>.jsonl`, others to `selection.jsonl`, which is not kept.
    #[arg(long)]
    pub problems: Option<String>,
    /// Passes to time, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Pass::Forward, Pass::Backward, Pass::ForwardBackward])]
    pub passes: Vec<Pass>,
    /// Who is timed.
    #[command(flatten)]
    pub who: Who,
    /// The set `quick`, 5 runs each: a look, not a measurement. Rows go to `quick.jsonl`, which is not kept.
    #[arg(long, conflicts_with = "problems")]
    pub quick: bool,
    /// Fewest timed runs of each point.
    #[arg(long, default_value_t = 20)]
    pub runs: usize,
    /// Leave out points whose fewest runs would take more seconds than this.
    #[arg(long, default_value_t = 120.0)]
    pub limit: f64,
    /// Where rows go.
    #[command(flatten)]
    pub output: Output,
}

/// What a run leaves.
pub struct Outcome {
    /// The id of the run.
    pub id: String,
    /// The rows that were added, as written.
    pub rows: Vec<Row>,
    /// All rows of the run in the file.
    pub run: Vec<Row>,
    /// Where they are.
    pub path: PathBuf,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Sides of the yardstick matrices.
const MATMUL_SIZE: usize = 4096;

/// Times everything; each row is on disk before the next point is timed.
///
/// # Errors
/// Problems, backends and devices that do not exist, and results that cannot be written.
pub fn run(args: &BenchArgs) -> anyhow::Result<Outcome> {
    ensure!(args.runs > 0, "--runs 0: at least 1 is accepted");
    let limit = Duration::try_from_secs_f64(args.limit).context("--limit")?;
    let rig = Rig::open(args.backend)?.with_engine(args.engine)?;
    let (selection, runs) = match &args.problems {
        _ if args.quick => ("quick", args.runs.min(5)),
        Some(selection) => (selection.as_str(), args.runs),
        None => (rig.default_set(), args.runs),
    };
    let problems = catalogue::select(selection)?;
    let machine = args.output.of(rig.machine().clone());
    let mut bench = Bench {
        providers: args.who.chosen(rig.providers(), &Provider::PEERS),
        passes: &args.passes,
        problems: &problems,
        effort: rig.effort(runs, limit),
        session: Session::start(
            args.output.run_id(&machine),
            args.output.path(&machine, &file_name(selection)),
            machine,
            rig.backend(),
        )?,
        bar: progress_bar(),
    };
    bench.time_native(&rig)?;
    bench.time_peers(&args.who.script())?;
    bench.bar.finish_and_clear();

    let Session {
        run,
        path,
        rows,
        notes,
        ..
    } = bench.session;
    let mut all = if path.exists() {
        Row::read(&path)?
    } else {
        Vec::new()
    };
    all.retain(|row| row.run == run);
    Ok(Outcome {
        id: run,
        rows,
        run: all,
        path,
        notes,
    })
}

/// A run under way.
struct Bench<'a> {
    providers: Vec<Provider>,
    passes: &'a [Pass],
    problems: &'a [Problem],
    effort: Effort,
    session: Session,
    bar: ProgressBar,
}

impl<'a> Bench<'a> {
    /// This program's own providers, neighbours in time where they are compared.
    fn time_native(&mut self, rig: &Rig) -> anyhow::Result<()> {
        let matmuls = self.matmuls();
        let points = self.native_points();
        self.bar.set_length((matmuls.len() + points.len()) as u64);
        for (matmul, pass) in matmuls {
            let (who, problem) = (Provider::BurnMatmul, matmul.problem());
            self.bar
                .set_message(format!("{} {problem} {pass}", who.name()));
            match rig.matmul(&matmul, pass, &self.effort) {
                Ok(timing) => self.session.add_matmul(&matmul, pass, &timing)?,
                Err(reason) => {
                    let points = [(problem.as_str(), pass)];
                    self.session
                        .leave_out(who, &points, &format!("{reason:#}"))?;
                }
            }
            self.bar.inc(1);
        }
        for (problem, provider, pass) in points {
            let what = format!("{} {} {pass}", provider.name(), problem.name);
            self.bar.set_message(what);
            match rig.attention(provider, problem, pass, &self.effort) {
                Ok(measured) => self
                    .session
                    .add_attention(provider, problem, pass, &measured)?,
                Err(reason) => {
                    let points = [(problem.name.as_str(), pass)];
                    self.session
                        .leave_out(provider, &points, &format!("{reason:#}"))?;
                }
            }
            self.bar.inc(1);
        }
        Ok(())
    }

    /// In each type: what the device's times are compared with, and what the host's.
    fn matmuls(&self) -> Vec<(Matmul, Pass)> {
        let mut points = Vec::new();
        for problem in self.problems {
            let matmul = Matmul {
                size: MATMUL_SIZE,
                dtype: problem.shape.dtype,
            };
            let is_asked = |pass: Pass| match pass {
                Pass::HostOperation => self.passes.contains(&pass),
                _ => self.passes.iter().any(|pass| !pass.is_of_host()),
            };
            for pass in [Pass::Forward, Pass::HostOperation] {
                if is_asked(pass) && !points.contains(&(matmul, pass)) {
                    points.push((matmul, pass));
                }
            }
        }
        points.retain(|_| self.providers.contains(&Provider::BurnMatmul));
        points
    }

    fn native_points(&self) -> Vec<(&'a Problem, Provider, Pass)> {
        let native = |provider: &&Provider| Provider::NATIVE.contains(provider);
        let mut points = Vec::new();
        for problem in self.problems {
            for &pass in self.passes {
                for &provider in self.providers.iter().filter(native) {
                    // The kernels alone are this library's.
                    let runs = pass != Pass::HostForward || provider == Provider::S2;
                    if runs && provider.computes(problem) {
                        points.push((problem, provider, pass));
                    }
                }
            }
        }
        points
    }

    /// The others, each in its own process: what one breaks stays with it.
    fn time_peers(&mut self, script: &Script) -> anyhow::Result<()> {
        let peers = self.providers.clone();
        for provider in peers
            .into_iter()
            .filter(|who| Provider::PEERS.contains(who))
        {
            let mut points = Vec::new();
            for problem in self.problems.iter().filter(|of| provider.computes(of)) {
                let passes = self.passes.iter().filter(|pass| !pass.is_of_host());
                points.extend(passes.map(|&pass| (problem, pass)));
            }
            if points.is_empty() {
                continue;
            }
            self.bar.inc_length(points.len() as u64);
            self.bar.set_message(provider.name());
            let bar = &self.bar;
            script.add_rows(
                provider,
                &points,
                &self.effort,
                &mut self.session,
                |timed| {
                    bar.inc(1);
                    if let Some(point) = timed {
                        bar.set_message(point);
                    }
                },
            )?;
        }
        Ok(())
    }
}

/// Sets have files of their own; anything else goes to one that is not kept.
fn file_name(selection: &str) -> String {
    let set = SETS.iter().find(|set| set.name == selection);
    format!("{}.jsonl", set.map_or("selection", |set| set.name))
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {pos}/{len} points, {elapsed} (about {eta} left)  {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
