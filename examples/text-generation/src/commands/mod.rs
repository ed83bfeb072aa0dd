//! What each sub-command does.

mod compare;
mod generate;
mod patterns;
mod train;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Runs a command.
///
/// # Errors
///
/// With what is wrong and what to do about it.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command() {
        Command::Train(args) => train::run(*args),
        Command::Generate(args) => generate::run(args),
        Command::Patterns(args) => patterns::run(args),
        Command::Compare(args) => compare::run(args),
    }
}
