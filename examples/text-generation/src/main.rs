//! `cargo run --release -p text-generation`: see the README beside this crate.

use std::{io, process::ExitCode};

use clap::Parser;
use text_generation::{cli::Cli, commands};

fn main() -> anyhow::Result<ExitCode> {
    let result = commands::run(Cli::parse());
    // Whoever reads the output, such as `head`, may have had enough.
    if let Err(error) = &result
        && let Some(error) = error.downcast_ref::<io::Error>()
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        return Ok(ExitCode::SUCCESS);
    }
    result
}
