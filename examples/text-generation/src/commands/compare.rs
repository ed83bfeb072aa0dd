//! `compare`: the losses of several runs, as a table and a picture.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use anyhow::Result;

use crate::{
    cli::CompareArgs,
    config::RunConfig,
    report::{Comparison, History},
    run_dir::RunDir,
};

pub(super) fn run(args: CompareArgs) -> Result<ExitCode> {
    let history = |name: &String| {
        let run = RunDir::open(&args.artifacts, Some(name))?;
        let config = RunConfig::load(&run.config())?;
        Ok((name.clone(), History::read(&run, &config)))
    };
    let runs = args.runs.iter().map(history).collect::<Result<_>>()?;
    let comparison = Comparison::new(runs)?;
    comparison.draw(&args.out)?;
    writeln!(stdout(), "{}\n{}", comparison.table(), args.out.display())?;
    Ok(ExitCode::SUCCESS)
}
