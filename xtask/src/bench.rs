//! `cargo xtask bench`: builds and runs `s2-bench bench`.

use std::path::PathBuf;

use anyhow::Context;
use xshell::{Shell, cmd};

use crate::WITH_BURN;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct BenchArgs {
    /// Options of `s2-bench bench`; `--help` lists them.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    options: Vec<String>,
}

/// Runs the benchmark that this tree builds.
pub fn run(shell: &Shell, args: &BenchArgs) -> anyhow::Result<()> {
    let options = &args.options;
    let features: Vec<String> = match backend(options) {
        Some(backend) => vec![format!("--features={backend}")],
        None => Vec::new(),
    };
    cmd!(
        shell,
        "cargo build --release {WITH_BURN...} --bin s2-bench {features...}"
    )
    .run()?;
    let program = target_directory(shell)?.join("release/s2-bench");
    Ok(cmd!(shell, "{program} bench {options...}").run()?)
}

/// The backend named in the options: a feature of the same name is needed for it.
fn backend(options: &[String]) -> Option<&str> {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match option.strip_prefix("--backend") {
            Some("") => return options.next().map(String::as_str),
            Some(value) => return value.strip_prefix('='),
            None => {}
        }
    }
    None
}

fn target_directory(shell: &Shell) -> anyhow::Result<PathBuf> {
    let metadata = cmd!(
        shell,
        "cargo metadata --format-version=1 --no-deps --offline"
    )
    .read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let directory = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}

#[cfg(test)]
mod tests {
    use super::backend;

    #[test]
    fn the_backend_is_found_in_both_spellings() {
        let options = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            backend(&options(&["--quick", "--backend", "cuda"])),
            Some("cuda")
        );
        assert_eq!(
            backend(&options(&["--backend=wgpu", "--quick"])),
            Some("wgpu")
        );
        assert_eq!(backend(&options(&["--quick"])), None);
    }
}
