//! Burn's own providers on GPUs, each point in a process of its own: their autotuning can hang or fail, and memory that it
//! took comes back.
//!
//! A first call, which tunes, is not timed, and only those that follow are held to the limit. The clock is the host's, around a
//! call that waits for the device, and caches keep what the run before left in them.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use wait_timeout::ChildExt;

use super::{Attention, Matmul, burn};
use crate::harness::{Effort, Timing};
use crate::problems::Problem;
use crate::record::{Backend, Dtype, Pass};

/// What such a process is asked: one point.
#[derive(Clone, Debug, clap::Args)]
pub struct PointArgs {
    /// What to run on.
    #[arg(long, value_enum)]
    pub backend: Backend,
    /// Attention to time; the matrix product where it is left out.
    #[arg(long)]
    pub problem: Option<Problem>,
    /// The pass.
    #[arg(long, value_enum, default_value_t = Pass::Forward)]
    pub pass: Pass,
    /// Rows and columns of the matrices.
    #[arg(long, default_value_t = 4096)]
    pub size: usize,
    /// Type of their elements.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Fewest timed runs.
    #[arg(long)]
    pub runs: usize,
    /// Seconds that the fewest runs may take.
    #[arg(long)]
    pub limit: f64,
}

/// Starting, tuning and compiling may take this long, beside the runs.
const PREPARATION: Duration = Duration::from_secs(120);

/// Times the point in this process.
///
/// # Errors
/// A backend that is not built in, and points that are left out.
pub fn run(args: &PointArgs) -> anyhow::Result<Timing> {
    let device = burn::device(args.backend)?;
    let effort = Effort::gpu(args.runs, Duration::try_from_secs_f64(args.limit)?);
    let timing = match &args.problem {
        Some(problem) => Attention::Burn.time(problem, args.pass, &device, &effort, None)?,
        None => {
            let (size, dtype) = (args.size, args.dtype);
            Matmul { size, dtype }.time(&device, &effort)?
        }
    };
    Ok(Timing {
        // What the harness counts is the host's memory.
        peak_bytes: None,
        ..timing
    })
}

/// Times one pass of Burn's attention in a process of its own.
///
/// # Errors
/// Points that are left out, and a process that fails or takes too long.
pub fn attention(
    backend: Backend,
    problem: &Problem,
    pass: Pass,
    effort: &Effort,
) -> anyhow::Result<Timing> {
    let pass = pass.to_string();
    time(
        backend,
        &["--problem", &problem.name, "--pass", &pass],
        effort,
    )
}

/// Times Burn's matrix product in a process of its own.
///
/// # Errors
/// Those of [`attention`].
pub fn matmul(backend: Backend, matmul: &Matmul, effort: &Effort) -> anyhow::Result<Timing> {
    let (size, dtype) = (matmul.size.to_string(), matmul.dtype.to_string());
    time(backend, &["--size", &size, "--dtype", &dtype], effort)
}

fn time(backend: Backend, point: &[&str], effort: &Effort) -> anyhow::Result<Timing> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("point").args(point);
    command.args(["--backend", &backend.to_string()]);
    command.args(["--runs", &effort.runs.to_string()]);
    command.args(["--limit", &effort.limit.as_secs_f64().to_string()]);
    let output = finish_within(&mut command, effort.limit + PREPARATION)?;
    serde_json::from_str(&output).with_context(|| format!("a time was expected, not {output:?}"))
}

/// What a command prints.
///
/// # Errors
/// The last line of its complaints, or that it was ended because it took too long.
pub fn finish_within(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = collect(child.stdout.take());
    let complaints = collect(child.stderr.take());
    let Some(status) = child.wait_timeout(limit)? else {
        child.kill()?;
        child.wait()?;
        bail!("ended after {limit:.0?}: it did not finish");
    };
    let text = |reader: thread::JoinHandle<String>| {
        reader
            .join()
            .map_err(|_| anyhow!("its output cannot be read"))
    };
    let (output, complaints) = (text(output)?, text(complaints)?);
    let reason = complaints.trim().lines().last().unwrap_or_default();
    ensure!(status.success(), "its process failed ({status}): {reason}");
    Ok(output)
}

/// Reads on a thread of its own: a process stops where nobody empties its pipes.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
