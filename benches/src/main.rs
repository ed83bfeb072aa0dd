//! `s2-bench`: everything that is timed or checked on a machine, in one program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(any(feature = "timing", feature = "kernels"))]
use s2_bench::bench::{self, BenchArgs};
#[cfg(feature = "timing")]
use s2_bench::cache::{self, CacheArgs};
use s2_bench::catalogue::{self, SETS};
#[cfg(feature = "check")]
use s2_bench::check::{self, CheckArgs};
#[cfg(feature = "kernels")]
use s2_bench::decode::{self, DecodeArgs};
#[cfg(feature = "kernels")]
use s2_bench::kernels::{self, KernelsArgs};
#[cfg(feature = "timing")]
use s2_bench::providers::child::{self, PointArgs};
use s2_bench::record::Pass;
#[cfg(any(feature = "timing", feature = "kernels"))]
use s2_bench::table;
#[cfg(feature = "timing")]
use s2_bench::tokens::{self, TokensArgs};

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
    /// Let a small model write a long text, and note what its cache takes.
    #[cfg(feature = "timing")]
    Cache(CacheArgs),
    /// Time a token after a long prompt, of a large model with sparse layers and with dense ones.
    #[cfg(feature = "timing")]
    Tokens(TokensArgs),
    /// Hold the GPU kernels to their tests on this machine's device.
    #[cfg(feature = "check")]
    Check(CheckArgs),
    /// Time the GPU kernels alone, without Burn around them.
    #[cfg(feature = "kernels")]
    Kernels(KernelsArgs),
    /// Time one new token of each sequence against a cache, by the GPU kernels alone.
    #[cfg(feature = "kernels")]
    Decode(DecodeArgs),
    /// Time one point of Burn's and print it as JSON: what `bench` starts for each on GPUs.
    #[cfg(feature = "timing")]
    #[command(hide = true)]
    Point(PointArgs),
    /// List the catalogue.
    Problems {
        /// These as lines of JSON, for programs in other languages that time the same ones: sets, names, or parts of names,
        /// separated by commas.
        #[arg(long, num_args = 0..=1, default_missing_value = "cpu", value_name = "PROBLEMS")]
        json: Option<String>,
        /// The pass that the JSON asks for.
        #[arg(long, value_enum, default_value_t = Pass::Forward)]
        pass: Pass,
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
        #[cfg(feature = "timing")]
        Command::Cache(args) => {
            let (rows, path) = cache::run(&args)?;
            if let Some(last) = rows.last() {
                println!("{last}");
                println!(
                    "{} rows of run {} added to {}",
                    rows.len(),
                    last.run,
                    path.display()
                );
            }
        }
        #[cfg(feature = "timing")]
        Command::Tokens(args) => {
            let (rows, path) = tokens::run(&args)?;
            for row in &rows {
                println!("{row}");
            }
            println!("{} rows added to {}", rows.len(), path.display());
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
        #[cfg(feature = "kernels")]
        Command::Decode(args) => println!("{}", decode::run(&args)?),
        Command::Problems {
            json: Some(selection),
            pass,
        } => {
            for problem in catalogue::select(&selection)? {
                println!("{}", serde_json::to_string(&problem.point(pass)?)?);
            }
        }
        Command::Problems { json: None, .. } => list_problems()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list_problems() -> anyhow::Result<()> {
    for set in SETS {
        println!("{}: {}", set.name, set.about);
        for problem in (set.problems)() {
            println!(
                "  {:44} density {:.3}",
                problem.name,
                problem.report()?.density
            );
        }
    }
    Ok(())
}
