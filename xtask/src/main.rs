//! The project's own commands: `cargo xtask <command>`.

mod bench;
mod report;
mod setup;
mod test;
#[cfg(test)]
mod tidy;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use xshell::Shell;

/// Packages that do not need Burn, as Cargo's options.
///
/// Cargo unites the features of all packages that a command selects. The dependencies of these change features deep below
/// Burn: the PNG encoder those of `backtrace`'s decompressor, proptest those of `regex`. Selected together with the others
/// they would have Burn built once more.
const WITHOUT_BURN: [&str; 4] = [
    "--package",
    "s2-attention-pattern",
    "--package",
    "pattern-viewer",
];

/// All others. Commands that select these share one build of Burn with `cargo run -p text-generation`.
const WITH_BURN: [&str; 5] = [
    "--workspace",
    "--exclude",
    "s2-attention-pattern",
    "--exclude",
    "pattern-viewer",
];

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Format, lints, docs and all tests.
    Test(test::TestArgs),
    /// Time attention beside Burn's own and others, and print how they compare.
    Bench(bench::BenchArgs),
    /// Fill the tables and pictures of README and docs from result files.
    Report(report::ReportArgs),
    /// Prepare this machine for builds that need more than Rust.
    #[command(subcommand)]
    Setup(setup::Setup),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let shell = Shell::new()?;
    shell.change_dir(root());
    match cli.command {
        Command::Test(args) => test::run(&shell, &args),
        Command::Bench(args) => bench::run(&shell, &args),
        Command::Report(args) => report::run(&root(), &args),
        Command::Setup(setup::Setup::Llvm) => setup::llvm(&shell),
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
