//! What a row says about where and when it was timed.

use std::collections::BTreeMap;
use std::env::consts::{ARCH, OS};
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The machine and the build, as rows name them.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPU model and threads, or the GPU as it names itself.
    pub device: String,
    /// Kernel of the operating system, or the driver of the GPU where it is known.
    pub driver: Option<String>,
    /// Start of the run, UTC, RFC 3339.
    pub date: String,
    /// The commit, with `-dirty` if the tree has changes; `unknown` outside a repository.
    pub commit: String,
    /// Versions of this library, Burn and CubeCL.
    pub versions: BTreeMap<String, String>,
    /// Bytes of the host's memory that were free at the start, where that is known and matters.
    pub free_bytes: Option<u64>,
}

impl Machine {
    /// This machine, as a CPU.
    ///
    /// # Errors
    /// A system that does not say how many threads it has, or what the time is.
    pub fn cpu() -> anyhow::Result<Self> {
        let model =
            proc_field("cpuinfo", "model name").unwrap_or_else(|| format!("{OS} {ARCH} CPU"));
        let threads = available_parallelism()?;
        let driver = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let driver = driver.map(|release| format!("Linux {}", release.trim()));
        Self::now(format!("{model}, {threads} threads"), driver, free_bytes())
    }

    /// This machine, as the GPU of that name.
    ///
    /// # Errors
    /// A system that does not say what the time is.
    pub fn gpu(device: String) -> anyhow::Result<Self> {
        let driver = if device.contains("NVIDIA") {
            output(
                "nvidia-smi",
                &[
                    "--query-gpu=driver_version",
                    "--format=csv,noheader",
                    "--id=0",
                ],
            )
        } else {
            None
        };
        Self::now(device, driver, None)
    }

    fn now(
        device: String,
        driver: Option<String>,
        free_bytes: Option<u64>,
    ) -> anyhow::Result<Self> {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0)?;
        Ok(Self {
            device,
            driver,
            date: now.format(&Rfc3339)?,
            commit: commit(),
            versions: versions(),
            free_bytes,
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

/// A field of a file in `/proc`, on Linux.
fn proc_field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn free_bytes() -> Option<u64> {
    let kibibytes: u64 = proc_field("meminfo", "MemAvailable")?
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(kibibytes << 10)
}

/// What a program prints, if it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn commit() -> String {
    let git = |args: &[&str]| output("git", args);
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
