//! `s2-bench`: everything that is timed or checked on a machine, in one program.

use clap::{Parser, Subcommand};
use s2_bench::bench::{self, BenchArgs};
use s2_bench::problems::SETS;
use s2_bench::table;

/// Times block-sparse attention beside other implementations.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time problems and print how they compare.
    Bench(BenchArgs),
    /// List the catalogue.
    Problems {
        /// Problems as lines of JSON, for programs in other languages that time the same ones.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bench(args) => {
            let outcome = bench::run(&args)?;
            println!("{}", table::render(&outcome.rows)?);
            for note in &outcome.notes {
                println!("left out: {note}");
            }
            println!(
                "{} rows added to {}",
                outcome.rows.len(),
                outcome.path.display()
            );
        }
        Command::Problems { json } => list_problems(json)?,
    }
    Ok(())
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
