//! `patterns`: which blocks each head of each layer attends.

use std::{
    io::{IsTerminal, Write, stdout},
    process::ExitCode,
};

use anyhow::Result;
use burn_s2_attention::render::TextColor;

use crate::{
    cli::{PatternsArgs, TrainingArgs, configure},
    report::{describe_patterns, draw_patterns, picture},
};

/// Columns of what is not written to a terminal.
const WIDTH: usize = 100;

pub(super) fn run(args: PatternsArgs) -> Result<ExitCode> {
    let model = configure(args.preset, args.model, TrainingArgs::default()).model;
    let mut out = stdout();
    let color = if out.is_terminal() {
        TextColor::Ansi256
    } else {
        TextColor::None
    };
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0.into());
    writeln!(out, "{}", picture(&model)?.to_text(width, color))?;
    draw_patterns(&model, &args.out)?;
    writeln!(
        out,
        "{}\n{}",
        describe_patterns(&model)?,
        args.out.display()
    )?;
    Ok(ExitCode::SUCCESS)
}
