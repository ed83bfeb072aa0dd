//! `generate`: writing with a trained model, or with one that is still being trained.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use burn::{module::Module, store::ModuleRecord};

use crate::{
    cli::GenerateArgs,
    config::RunConfig,
    device,
    generate::{Sampler, generate},
    model::LanguageModel,
    run_dir::RunDir,
    training::newest_complete,
};

pub(super) fn run(args: GenerateArgs) -> Result<ExitCode> {
    let GenerateArgs {
        prompt,
        bytes,
        sampling,
        place,
    } = args;
    let mut sampler = Sampler::new(&sampling)?;
    let run = RunDir::open(&place.artifacts, place.run.as_deref())?;
    let config = RunConfig::load(&run.config())?;
    let device = device::open(place.device.as_ref(), config.model.dtype)?;
    let file = if run.model().is_file() {
        run.model()
    } else {
        match newest_complete(&run.checkpoints())? {
            (Some(interval), _) => run.checkpoints().join(format!("model-{interval}.bpk")),
            (None, _) => bail!("run `{}` has no checkpoint yet", run.path().display()),
        }
    };
    let record =
        ModuleRecord::load(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let model = LanguageModel::new(&config, &device)?
        .try_load_record(record)
        .with_context(|| format!("`{}` is not a model of this run", file.display()))?;

    let mut out = stdout();
    write!(out, "{prompt}")?;
    generate(
        &model,
        config.model.context,
        &prompt,
        bytes,
        &mut sampler,
        &device,
        &mut out,
    )?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}
