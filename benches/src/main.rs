//! `s2-bench`: everything that is timed or checked on a machine, in one program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(any(feature = "timing", feature = "kernels"))]
use s2_bench::bench::{self, BenchArgs};
use s2_bench::catalogue::SETS;
#[cfg(feature = "check")]
use s2_bench::check::{self, CheckArgs};
#[cfg(feature = "kernels")]
use s2_bench::kernels::{self, KernelsArgs};
#[cfg(feature = "timing")]
use s2_bench::providers::child::{self, PointArgs};
#[cfg(any(feature = "timing", feature = "kernels"))]
use s2_bench::table;

/// Times block-sparse attention beside other implementations, and checks it.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time problems and print how they compare.
    #[cfg(any(feature = "timing", feature = "kernels"))]
    Bench(BenchArgs),
    /// Hold the GPU kernels to their tests on this machine's device.
    #[cfg(feature = "check")]
    Check(CheckArgs),
    /// Time the GPU kernels alone, without Burn around them.
    #[cfg(feature = "kernels")]
    Kernels(KernelsArgs),
    /// Time one point of Burn's and print it as JSON: what `bench` starts for each on GPUs.
    #[cfg(feature = "timing")]
    #[command(hide = true)]
    Point(PointArgs),
    /// List the catalogue.
    Problems {
        /// Problems as lines of JSON, for programs in other languages that time the same ones.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        #[cfg(any(feature = "timing", feature = "kernels"))]
        Command::Bench(args) => {
            let outcome = bench::run(&args)?;
            println!("{}", table::render(&outcome.run)?);
            for note in &outcome.notes {
                println!("left out: {note}");
            }
            println!(
                "{} rows of run {} added to {}",
                outcome.rows.len(),
                outcome.id,
                outcome.path.display()
            );
        }
        #[cfg(feature = "check")]
        Command::Check(args) => {
            let rows = check::run(&args)?;
            println!("{}", check::render(&rows));
            if rows.iter().any(|row| !row.ok) {
                return Ok(ExitCode::FAILURE);
            }
        }
        #[cfg(feature = "timing")]
        Command::Point(args) => println!("{}", serde_json::to_string(&child::run(&args)?)?),
        #[cfg(feature = "kernels")]
        Command::Kernels(args) => println!("{}", kernels::run(&args)?),
        Command::Problems { json } => list_problems(json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list_problems(json: bool) -> anyhow::Result<()> {
    for set in SETS {
        if !json {
            println!("{}: {}", set.name, set.about);
        }
        for problem in (set.problems)() {
            if json {
                println!("{}", serde_json::to_string(&problem)?);
            } else {
                println!(
                    "  {:44} density {:.3}",
                    problem.name,
                    problem.report()?.density
                );
            }
        }
    }
    Ok(())
}
