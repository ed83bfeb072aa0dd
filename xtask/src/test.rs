//! `cargo xtask test`: everything that must hold before a change goes in.

use std::time::{Duration, Instant};
use std::{fmt, thread};

use anyhow::bail;
use xshell::{Cmd, Shell};

use crate::{WITH_BURN, WITHOUT_BURN};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Also what is slow and rarely breaks: each feature alone, ignored tests, all random cases on the GPU, benchmarks as
    /// tests.
    #[arg(long)]
    all: bool,
}

/// The GPU backends. Their code is type-checked everywhere and needs no GPU for that.
const GPU_FEATURES: [&str; 6] = ["wgpu", "vulkan", "metal", "cuda", "cuda-cpp", "rocm"];

/// On the GPU that WebGPU finds, by kernels alone and through Burn. Without one these tests say what is missing and end.
/// Every command that begins like this shares one build.
const GPU_TESTS: &str = "cargo test --release --package s2-attention-kernels --package burn-s2-attention \
                         --package s2-bench \
                         --features s2-attention-kernels/wgpu,s2-attention-kernels/lowering,burn-s2-attention/wgpu,burn-s2-attention/flex,s2-bench/wgpu";
/// `--lib` is for what needs no GPU: the kernels, lowered for devices that are not there.
const GPU_FEW: &str = "--lib --test gpu_alone --test check --test baselines";
/// Where most of the time goes. A program gives its device work from one thread, which on a CPU also compiles and runs it: one
/// program keeps one core busy, whatever its tests' threads, so that two run at a time.
const GPU_MANY: [&str; 2] = ["--test gpu", "--test cube"];

/// Runs the steps in order; the first that fails ends the run.
///
/// Building Burn is nearly all of the time, so it is built three times and no more: once as metadata with every feature
/// on (lints and docs share it), once as code for the CPU (tests and programs share it), once with a GPU backend. What
/// keeps it at that: one profile (release everywhere, which the tests need anyway to be fast), the same features of Burn in
/// every package, and [`WITH_BURN`] in every command that builds it for the CPU.
pub fn run(shell: &Shell, args: &TestArgs) -> anyhow::Result<()> {
    let (pictures, with_burn) = (WITHOUT_BURN.join(" "), WITH_BURN.join(" "));
    let clippy = "cargo clippy --release --all-targets --all-features";
    let doc = "cargo doc --release --lib --no-deps --all-features";
    let mut steps = vec![
        Step::new("format", "cargo fmt --all --check"),
        Step::new(
            "lints of patterns and pictures",
            &format!("{clippy} {pictures} -- -D warnings"),
        ),
        // DOCS_RS makes the build scripts of the CUDA and ROCm crates do without LLVM, which only linking needs.
        Step::new(
            "lints, every feature on",
            &format!("{clippy} {with_burn} -- -D warnings"),
        )
        .with("DOCS_RS", "1"),
        Step::new(
            "docs of patterns",
            &format!("{doc} --package s2-attention-pattern"),
        )
        .with("RUSTDOCFLAGS", "-Dwarnings"),
        Step::new("docs, every feature on", &format!("{doc} {with_burn}"))
            .with("DOCS_RS", "1")
            .with("RUSTDOCFLAGS", "-Dwarnings"),
    ];
    if args.all {
        steps.extend(slow_steps());
    }
    // Last, so that the run ends with the counts of the tests.
    steps.push(Step::new(
        "tests of patterns and pictures",
        &format!("cargo test --release --all-features {pictures}"),
    ));
    steps.push(Step::new(
        "tests",
        &format!("cargo test --release {with_burn}"),
    ));
    // Built first: commands that build at a time would wait for each other.
    let [first, second] = GPU_MANY.map(|tests| format!("{GPU_TESTS} {tests}"));
    steps.push(Step::new(
        "build of the tests on a GPU",
        &format!("{GPU_TESTS} {GPU_FEW} {} --no-run", GPU_MANY.join(" ")),
    ));
    let gpu = [
        Step::new(
            "lowered kernels, tests alone on a GPU",
            &format!("{GPU_TESTS} {GPU_FEW}"),
        ),
        Step::new("tests on a GPU", &first).beside(&second),
    ];
    steps.extend(gpu.map(|step| {
        if args.all {
            step.with("S2_ALL", "1")
        } else {
            step
        }
    }));
    run_steps(shell, &steps)
}

fn slow_steps() -> Vec<Step> {
    let lint = |package: &str, features: &str| {
        let command = format!(
            "cargo clippy --release --package {package} --no-default-features --features={features} -- -D warnings"
        );
        let alone = if features.is_empty() {
            "no feature"
        } else {
            features
        };
        Step::new(&format!("{package} with {alone}"), &command).with("DOCS_RS", "1")
    };
    let mut steps = vec![
        lint("s2-attention-kernels", ""),
        lint("burn-s2-attention", ""),
        lint("burn-s2-attention", "flex"),
    ];
    steps.extend(
        GPU_FEATURES.map(|feature| lint("burn-s2-attention", &format!("{feature},autodiff"))),
    );
    steps.push(Step::new(
        "benchmarks as tests",
        "cargo test --release --package s2-attention-pattern --benches",
    ));
    steps.push(Step::new(
        "every kernel, lowered",
        "cargo test --release --package s2-attention-kernels --features lowering --lib -- --ignored",
    ));
    steps.push(Step::new(
        "ignored tests",
        &format!("cargo test --release {} -- --ignored", WITH_BURN.join(" ")),
    ));
    steps
}

struct Step {
    name: String,
    environment: Vec<(&'static str, &'static str)>,
    command: String,
    /// What runs at the same time. What it prints follows when both have ended.
    beside: Option<String>,
}

impl Step {
    fn new(name: &str, command: &str) -> Self {
        Self {
            name: name.to_owned(),
            environment: Vec::new(),
            command: command.to_owned(),
            beside: None,
        }
    }

    fn beside(mut self, command: &str) -> Self {
        self.beside = Some(command.to_owned());
        self
    }

    /// The command that is a failure, if one is.
    fn run(&self, shell: &Shell) -> Result<(), String> {
        thread::scope(|scope| {
            let beside = self.beside.as_deref().map(|command| {
                let shell = shell.clone();
                (
                    command,
                    scope.spawn(move || self.start(&shell, command).ignore_status().output()),
                )
            });
            let main = self.start(shell, &self.command).run();
            let mut failed = main.is_err().then(|| self.typed(&self.command));
            if let Some((command, thread)) = beside {
                println!("\n    {}", self.typed(command));
                let held = match thread.join().expect("no panic") {
                    Ok(output) => {
                        for part in [&output.stderr, &output.stdout] {
                            println!("{}", String::from_utf8_lossy(part));
                        }
                        output.status.success()
                    }
                    Err(error) => {
                        println!("{error}");
                        false
                    }
                };
                if !held {
                    failed.get_or_insert_with(|| self.typed(command));
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }

    fn start<'a>(&self, shell: &'a Shell, command: &str) -> Cmd<'a> {
        let mut words = command.split(' ');
        let program = words.next().unwrap_or_default();
        let command = shell.cmd(program).args(words);
        command.envs(self.environment.iter().copied()).quiet()
    }

    /// A command of this step as typed in a shell.
    fn typed(&self, command: &str) -> String {
        let environment = self.environment.iter();
        let words = environment.map(|(variable, value)| format!("{variable}={value} "));
        words.chain([command.to_owned()]).collect()
    }

    fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.environment.push((variable, value));
        self
    }
}

/// As typed in a shell.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed(&self.command))?;
        match &self.beside {
            Some(command) => write!(f, "\n    beside {}", self.typed(command)),
            None => Ok(()),
        }
    }
}

fn run_steps(shell: &Shell, steps: &[Step]) -> anyhow::Result<()> {
    let mut times: Vec<String> = Vec::new();
    let start = Instant::now();
    for (index, step) in steps.iter().enumerate() {
        println!(
            "\n=== {}/{}  {}\n    {step}",
            index + 1,
            steps.len(),
            step.name
        );
        let step_start = Instant::now();
        if let Err(command) = step.run(shell) {
            bail!(
                "{} failed, as said above. To run it alone:\n\n    {command}\n",
                step.name
            );
        }
        times.push(format!("{} {}", step.name, seconds(step_start.elapsed())));
    }
    println!(
        "\nAll passed in {} ({}).",
        seconds(start.elapsed()),
        times.join(", ")
    );
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_fails_by_either_of_its_commands() {
        let shell = Shell::new().unwrap();
        let run = |first: &str, second: &str| {
            Step::new("both", first)
                .with("SEEN", "1")
                .beside(second)
                .run(&shell)
        };
        let (passes, fails) = ("cargo --version", "cargo --no-such-option");
        let failed = Err(format!("SEEN=1 {fails}"));
        assert_eq!(run(passes, passes), Ok(()));
        assert_eq!(run(fails, passes), failed);
        assert_eq!(run(passes, fails), failed);
    }
}
