//! What runs through Burn on GPUs, each point in a process of its own: Burn's autotuning can hang or fail, and memory that it
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

use super::{Attention, Matmul, Provider, burn};
use crate::harness::{Effort, Timing};
use crate::problems::Problem;
use crate::record::{Backend, Dtype, Pass};
use crate::summary::{BURN_ATTENTION, S2_ATTENTION};

/// What such a process is asked: one point.
#[derive(Clone, Debug, clap::Args)]
pub struct PointArgs {
    /// What to run on.
    #[arg(long, value_enum)]
    pub backend: Backend,
    /// Who is timed.
    #[arg(long, value_enum)]
    pub provider: Provider,
    /// Attention to time.
    #[arg(
        long,
        required_if_eq("provider", BURN_ATTENTION),
        required_if_eq("provider", S2_ATTENTION)
    )]
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
    let (size, dtype) = (args.size, args.dtype);
    let matmul = Matmul { size, dtype };
    let timing = match (args.provider, args.pass, &args.problem) {
        (Provider::BurnMatmul, Pass::Forward, _) => matmul.time(&device, &effort)?,
        (Provider::BurnMatmul, Pass::HostOperation, _) => matmul.host(&device, &effort)?,
        (Provider::S2, Pass::HostOperation, Some(problem)) => {
            Attention::S2.host(problem, &device, &effort)?
        }
        (Provider::BurnAttention, Pass::HostOperation, Some(problem)) => {
            Attention::Burn.host(problem, &device, &effort)?
        }
        (Provider::BurnAttention, pass, Some(problem)) => {
            Attention::Burn.time(problem, pass, &device, &effort, None)?
        }
        (other, pass, _) => bail!("{pass} of {} is no point of Burn's", other.name()),
    };
    Ok(Timing {
        // What the harness counts is the host's memory.
        peak_bytes: None,
        ..timing
    })
}

/// Times one pass of attention through Burn in a process of its own.
///
/// # Errors
/// Points that are left out, and a process that fails or takes too long.
pub fn attention(
    backend: Backend,
    provider: Provider,
    problem: &Problem,
    pass: Pass,
    effort: &Effort,
) -> anyhow::Result<Timing> {
    let what = ["--problem", &problem.name];
    time(backend, provider, &what, pass, effort)
}

/// Times a pass of Burn's matrix product in a process of its own.
///
/// # Errors
/// Those of [`attention`].
pub fn matmul(
    backend: Backend,
    matmul: &Matmul,
    pass: Pass,
    effort: &Effort,
) -> anyhow::Result<Timing> {
    let (size, dtype) = (matmul.size.to_string(), matmul.dtype.to_string());
    let what = ["--size", &size, "--dtype", &dtype];
    time(backend, Provider::BurnMatmul, &what, pass, effort)
}

fn time(
    backend: Backend,
    provider: Provider,
    what: &[&str],
    pass: Pass,
    effort: &Effort,
) -> anyhow::Result<Timing> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["point", "--provider", provider.name()]);
    command.args(what).args(["--pass", &pass.to_string()]);
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
