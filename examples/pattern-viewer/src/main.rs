//! Shows what an attention pattern reads, keeps and costs: `pattern-viewer --help`.

mod cli;
mod report_table;
mod source;

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use anstream::AutoStream;
use anyhow::{Context, Result, bail};
use clap::Parser;
use s2_attention_pattern::render::{Picture, TextColor, View};
use s2_attention_pattern::{Pattern, PatternReport};

use cli::{Cli, ColorChoice, OutputOptions, ViewChoice};

/// Blocks that are shown without `--seq-len`, where the pattern covers so many.
const DEFAULT_BLOCKS: usize = 24;

/// Columns of a terminal that does not tell.
const DEFAULT_WIDTH: usize = 80;

fn main() -> ExitCode {
    let shown =
        show(&Cli::parse()).and_then(|text| match io::stdout().write_all(text.as_bytes()) {
            // Whoever read the text has seen enough of it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write the text"),
        });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Unlike `eprintln!`, without a panic where nobody listens.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Writes the pictures that are asked for, and returns what is said on the terminal.
fn show(cli: &Cli) -> Result<String> {
    let config = source::config(cli)?;
    let pattern = config.build()?;
    if cli.output.print_config {
        return Ok(serde_json::to_string_pretty(&config)? + "\n");
    }
    let output = &cli.output;
    let tokens = output
        .seq_len
        .map_or_else(|| default_tokens(&pattern), usize::from);
    let blocks = tokens.div_ceil(pattern.block_size());
    let picture = Picture::new(&pattern, blocks, view(&pattern, output)?)?;

    let mut said = String::new();
    if let Some(path) = &output.svg {
        write_file(path, picture.to_svg().as_bytes())?;
        said += &format!("wrote {}\n", path.display());
    }
    if let Some(path) = &output.png {
        write_file(path, &picture.to_png(output.png_scale)?)?;
        said += &format!("wrote {}\n", path.display());
    }
    if output.svg.is_none() && output.png.is_none() {
        said += &picture.to_text(width(output), color(output.color));
    }
    let report = PatternReport::new(&pattern, tokens)?;
    said += &format!(
        "\n{}\n",
        report_table::table(&pattern, &report, width(output))
    );
    Ok(said)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
}

fn default_tokens(pattern: &Pattern) -> usize {
    let covered = pattern.max_blocks().map_or(usize::MAX, |(q, kv)| q.min(kv));
    DEFAULT_BLOCKS.min(covered) * pattern.block_size()
}

fn view(pattern: &Pattern, output: &OutputOptions) -> Result<View> {
    let Some(head) = output.head else {
        return Ok(match output.view {
            ViewChoice::Heads => View::Heads,
            ViewChoice::Union => View::Union,
        });
    };
    // Users count all heads, the pattern its active ones.
    let first = pattern.heads().global_head(0);
    let active = first..first + pattern.num_heads();
    if !active.contains(&head) {
        bail!(
            "`--head` is {head}, but the heads are {}..{}",
            active.start,
            active.end
        );
    }
    Ok(View::Head(head - first))
}

fn width(output: &OutputOptions) -> usize {
    let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    output
        .width
        .map(usize::from)
        .or_else(terminal)
        .unwrap_or(DEFAULT_WIDTH)
}

fn color(choice: ColorChoice) -> TextColor {
    let true_color =
        env::var("COLORTERM").is_ok_and(|value| ["truecolor", "24bit"].contains(&&*value));
    let shown = match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // Knows NO_COLOR, CLICOLOR, dumb terminals and pipes.
        ColorChoice::Auto => AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
    };
    match (shown, true_color) {
        (false, _) => TextColor::None,
        (true, false) => TextColor::Ansi256,
        (true, true) => TextColor::TrueColor,
    }
}
