//! `cargo xtask test`: everything that must hold before a change goes in.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::bail;
use xshell::Shell;

use crate::{WITH_BURN, WITHOUT_BURN};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Also what is slow and rarely breaks: each feature alone, ignored tests, benchmarks as tests.
    #[arg(long)]
    all: bool,
}

/// The GPU backends. Their code is type-checked everywhere and needs no GPU for that.
const GPU_FEATURES: [&str; 6] = ["wgpu", "vulkan", "metal", "cuda", "cuda-cpp", "rocm"];

/// On the GPU that WebGPU finds, by kernels alone and through Burn. Without one these tests say what is missing and end.
/// `--lib` is for what needs none: the kernels, lowered for devices that are not there.
const GPU_TESTS: &str = "cargo test --release --package s2-attention-kernels --package burn-s2-attention \
                         --package s2-bench \
                         --features s2-attention-kernels/wgpu,s2-attention-kernels/lowering,burn-s2-attention/wgpu,burn-s2-attention/flex,s2-bench/wgpu \
                         --lib --test cube --test gpu --test gpu_alone --test check --test baselines";

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
    steps.push(Step::new("tests on a GPU", GPU_TESTS));
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
}

impl Step {
    fn new(name: &str, command: &str) -> Self {
        Self {
            name: name.to_owned(),
            environment: Vec::new(),
            command: command.to_owned(),
        }
    }

    fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.environment.push((variable, value));
        self
    }
}

/// As typed in a shell.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (variable, value) in &self.environment {
            write!(f, "{variable}={value} ")?;
        }
        f.write_str(&self.command)
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
        let mut words = step.command.split(' ');
        let program = words.next().unwrap_or_default();
        let command = shell
            .cmd(program)
            .args(words)
            .envs(step.environment.iter().copied());
        if command.quiet().run().is_err() {
            bail!(
                "{} failed, as said above. To run it alone:\n\n    {step}\n",
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
