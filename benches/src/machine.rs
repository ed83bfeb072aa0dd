//! What a row says about where and when it was timed.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::available_parallelism;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The machine and the build, as rows name them.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPU model and threads.
    pub device: String,
    /// Kernel of the operating system.
    pub driver: Option<String>,
    /// Start of the run, UTC, RFC 3339.
    pub date: String,
    /// The commit, with `-dirty` if the tree has changes; `unknown` outside a repository.
    pub commit: String,
    /// Versions of this library, Burn and CubeCL.
    pub versions: BTreeMap<String, String>,
    /// Bytes of memory that were free at the start.
    pub available_bytes: u64,
}

impl Machine {
    /// This machine, as a CPU.
    pub fn cpu() -> anyhow::Result<Self> {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::everything());
        let system = System::new_with_specifics(kinds);
        let model = system
            .cpus()
            .first()
            .map_or("CPU", |cpu| cpu.brand().trim());
        let threads = available_parallelism()?;
        let now = OffsetDateTime::now_utc().replace_nanosecond(0)?;
        Ok(Self {
            device: format!("{model}, {threads} threads"),
            driver: System::kernel_long_version().into(),
            date: now.format(&Rfc3339)?,
            commit: commit(),
            versions: versions(),
            available_bytes: system.available_memory(),
        })
    }

    /// The folder of results: date and device, in letters that any file system takes.
    pub fn folder(&self) -> String {
        let device = self.device.to_lowercase();
        let words = device
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        let day = self.date.split('T').next().unwrap_or_default();
        format!("{day}-{}", words.collect::<Vec<_>>().join("-"))
    }

    /// The id of a run that starts now.
    pub fn run_id(&self) -> String {
        format!("{}-{}", self.date, std::process::id())
    }
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // Results and what is made of them change with every run.
    let code = [
        ":/",
        ":(top,exclude)benches/results",
        ":(top,exclude)docs",
        ":(top,exclude)README.md",
    ];
    match git(&[
        &["status", "--porcelain", "--untracked-files=no", "--"],
        &code[..],
    ]
    .concat())
    {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}-dirty"),
    }
}

/// Read from the lock file that this program was built with: Burn does not export its version.
fn versions() -> BTreeMap<String, String> {
    let lock = include_str!("../../Cargo.lock");
    let field = |package: &str, name: &str| {
        let line = package
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let packages = lock
        .split("[[package]]")
        .filter_map(|package| Some((field(package, "name")?, field(package, "version")?)));
    packages
        .filter(|(name, _)| {
            ["burn", "burn-s2-attention", "cubecl", "gemm"].contains(&name.as_str())
        })
        .collect()
}
