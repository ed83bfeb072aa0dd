//! `cargo xtask report`: the numbers and plots of README and docs, from result files alone.
//!
//! A document says what it shows between two markers, and this command writes what stands between them:
//!
//! ```text
//! <!-- report: <view> <results file> <run id> -->
//! (written by `cargo xtask report`)
//! <!-- end of report -->
//! ```

mod cache;
mod documents;
mod host;
mod left_out;
mod peers;
mod plots;
mod series;
mod tables;
#[cfg(test)]
mod tests;
mod tokens;
mod views;

use std::path::{Path, PathBuf};

use anyhow::Context;

use documents::Source;
pub use documents::documents;

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Show these results in place of those that the documents name for the same problems (the same file name), e.g.
    /// `benches/results/<date>-<device>/cpu.jsonl`.
    #[arg(long)]
    results: Option<PathBuf>,
    /// The run to show, instead of the last one in the file.
    #[arg(long, requires = "results")]
    run: Option<String>,
}

/// Brings all documents up to date.
pub fn run(root: &Path, args: &ReportArgs) -> anyhow::Result<()> {
    let replacement = match &args.results {
        Some(results) => Some(Source::new(root, results, args.run.clone())?),
        None => None,
    };
    for document in documents(root)? {
        for (path, text) in document.updated(root, replacement.as_ref())? {
            let shown = path.strip_prefix(root).unwrap_or(&path).to_owned();
            if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
                println!("unchanged: {}", shown.display());
                continue;
            }
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
            }
            std::fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
            println!("written:   {}", shown.display());
        }
    }
    Ok(())
}
