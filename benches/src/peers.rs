//! Providers of `benches/baselines`, in Python: a process for each, which is told the points and prints their times.
//!
//! What a row says about a problem is written here alone: the script gets the attended pairs of the pattern, refuses to
//! time a mask that has others, and returns nothing but times.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::harness::{Effort, Timing};
use crate::problems::Problem;
use crate::providers::Provider;
use crate::record::Pass;
use crate::session::Session;

/// Who is timed.
#[derive(Debug, clap::Args)]
pub struct Who {
    /// Who is timed, separated by commas: all that this program has, where it is left out, and with `--baselines` also all of
    /// `benches/baselines`.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub providers: Vec<Provider>,
    /// The Python of the providers of `benches/baselines`, which are timed too unless `--providers` names others.
    #[arg(
        long,
        value_name = "PYTHON",
        num_args = 0..=1,
        default_missing_value = "python3"
    )]
    pub baselines: Option<String>,
    /// The script of the baselines.
    #[arg(long, default_value = "benches/baselines/bench.py")]
    pub script: PathBuf,
}

impl Who {
    /// Those that are named; where none are, `native`, and with baselines `peers` too.
    pub fn chosen(&self, native: &[Provider], peers: &[Provider]) -> Vec<Provider> {
        match &self.baselines {
            _ if !self.providers.is_empty() => self.providers.clone(),
            Some(_) => [native, peers].concat(),
            None => native.to_vec(),
        }
    }

    /// The script of the baselines.
    pub fn script(&self) -> Script {
        Script {
            python: self.baselines.clone().unwrap_or("python3".to_owned()),
            path: self.script.clone(),
        }
    }
}

/// The script and what runs it.
#[derive(Clone, Debug)]
pub struct Script {
    /// A Python with PyTorch.
    pub python: String,
    /// `benches/baselines/bench.py`.
    pub path: PathBuf,
}

/// What it prints, a line each.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// First: the versions of what it times.
    Versions { versions: BTreeMap<String, String> },
    /// A point that was timed.
    Time {
        problem: String,
        pass: Pass,
        median_us: f64,
        min_us: f64,
        runs: usize,
        peak_bytes: u64,
    },
    /// A point, or all of them, that cannot be timed.
    LeftOut {
        problem: Option<String>,
        pass: Option<Pass>,
        reason: String,
    },
}

/// What came of a point.
pub enum Outcome<'a, 'v> {
    /// Its time, and the versions of what was timed.
    Timed(&'a Problem, Pass, Timing, &'v BTreeMap<String, String>),
    /// A point that was left out, or all of which nothing was said before, and why.
    LeftOut(Option<(&'a Problem, Pass)>, String),
}

/// Importing PyTorch and compiling kernels may take this long, beside the runs of a point.
const PREPARATION: Duration = Duration::from_secs(180);

impl Script {
    /// Times the points of a provider; `report` gets what came of each as soon as it is known.
    ///
    /// # Errors
    /// A script that cannot be started, one that prints something else than times, and those of `report`.
    pub fn time<'a>(
        &self,
        provider: Provider,
        points: &[(&'a Problem, Pass)],
        effort: &Effort,
        mut report: impl FnMut(Outcome<'a, '_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let asked = |name: &str| {
            let of = points.iter().find(|(of, _)| of.name == name);
            of.with_context(|| format!("it speaks of {name}, which was not asked"))
        };
        let mut child = self.start(provider, points, effort)?;
        let lines = lines(&mut child)?;
        let complaints = complaints(&mut child);
        let mut versions = BTreeMap::new();
        let patience = effort.limit.saturating_add(PREPARATION);
        loop {
            let line = match lines.recv_timeout(patience) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    child.wait()?;
                    let reason = format!("ended: nothing came in {patience:.0?}");
                    return report(Outcome::LeftOut(None, reason));
                }
            };
            match read_line(&line)? {
                Line::Versions { versions: seen } => versions = seen,
                Line::LeftOut {
                    problem,
                    pass,
                    reason,
                } => {
                    let point = match (problem, pass) {
                        (Some(problem), Some(pass)) => Some((asked(&problem)?.0, pass)),
                        _ => None,
                    };
                    report(Outcome::LeftOut(point, reason))?;
                }
                Line::Time {
                    problem,
                    pass,
                    median_us,
                    min_us,
                    runs,
                    peak_bytes,
                } => {
                    let (of, _) = asked(&problem)?;
                    let microseconds = |us: f64| Duration::try_from_secs_f64(us / 1e6);
                    let timing = Timing {
                        median: microseconds(median_us)?,
                        min: microseconds(min_us)?,
                        runs,
                        peak_bytes: Some(peak_bytes),
                    };
                    report(Outcome::Timed(of, pass, timing, &versions))?;
                }
            }
        }
        let status = child.wait()?;
        if !status.success() {
            let text = complaints.join().unwrap_or_default();
            let reason = text.trim().lines().last().unwrap_or_default().to_owned();
            let reason = format!("its process failed ({status}): {reason}");
            report(Outcome::LeftOut(None, reason))?;
        }
        Ok(())
    }

    /// Times the points of a provider as rows of a session, which is told what was left out, and why; `done` is told of each
    /// point: its name where it was timed. A script that fails ends the provider, not the run: its other points are left out.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn add_rows<'a>(
        &self,
        provider: Provider,
        points: &[(&'a Problem, Pass)],
        effort: &Effort,
        session: &mut Session,
        mut done: impl FnMut(Option<String>),
    ) -> anyhow::Result<()> {
        let name = provider.name();
        let named = |points: &[(&'a Problem, Pass)]| -> Vec<(&'a str, Pass)> {
            let points = points.iter();
            points.map(|(of, pass)| (of.name.as_str(), *pass)).collect()
        };
        // Those of which nothing is known yet.
        let mut open = points.to_vec();
        let result = self.time(provider, points, effort, |outcome| {
            match outcome {
                Outcome::Timed(problem, pass, timing, versions) => {
                    open.retain(|point| *point != (problem, pass));
                    done(Some(format!("{name} {} {pass}", problem.name)));
                    session.add_peer(provider, problem, pass, &timing, versions)?;
                }
                Outcome::LeftOut(Some(point), reason) => {
                    open.retain(|other| *other != point);
                    done(None);
                    session.leave_out(provider, &named(&[point]), &reason)?;
                }
                Outcome::LeftOut(None, reason) => {
                    for _ in &open {
                        done(None);
                    }
                    session.leave_out(provider, &named(&open), &reason)?;
                    open.clear();
                }
            }
            Ok(())
        });
        let reason = match result {
            Err(reason) => format!("{reason:#}"),
            Ok(()) if open.is_empty() => return Ok(()),
            Ok(()) => "its process ended and had not spoken of it".to_owned(),
        };
        session.leave_out(provider, &named(&open), &reason)
    }

    fn start(
        &self,
        provider: Provider,
        points: &[(&Problem, Pass)],
        effort: &Effort,
    ) -> anyhow::Result<Child> {
        let mut child = Command::new(&self.python)
            .arg(&self.path)
            .args(["--provider", provider.name()])
            .args(["--runs", &effort.runs.to_string()])
            .args(["--limit", &effort.limit.as_secs_f64().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} {}", self.python, self.path.display()))?;
        let mut text = String::new();
        for &(problem, pass) in points {
            text += &serde_json::to_string(&problem.point(pass)?)?;
            text.push('\n');
        }
        // A script that has ended already says why on its way out.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(text.as_bytes());
        }
        Ok(child)
    }
}

fn read_line(line: &str) -> anyhow::Result<Line> {
    match serde_json::from_str(line) {
        Ok(line) => Ok(line),
        Err(error) => bail!("the script printed {line:?}, which is no time: {error}"),
    }
}

fn lines(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    let stdout = child.stdout.take().context("the script has no output")?;
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receive)
}

fn complaints(child: &mut Child) -> thread::JoinHandle<String> {
    let stderr = child.stderr.take();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stderr) = stderr {
            // What was read before an error is still worth showing.
            let _ = stderr.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
