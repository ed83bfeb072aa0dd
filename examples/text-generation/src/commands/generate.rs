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
    generate::{config as generation, generate},
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
    let generation = generation(&sampling, bytes)?;
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

    let (length, context) = (prompt.len().saturating_add(bytes), config.model.context);
    if length > context {
        eprintln!(
            "warning: {length} bytes with the prompt, and the model was trained on {context} at once: it has learnt nothing of \
             positions after those"
        );
    }
    let mut out = stdout();
    write!(out, "{prompt}")?;
    let written = generate(&model, &prompt, &generation, &mut out)?;
    writeln!(out)?;
    eprintln!("{written}");
    Ok(ExitCode::SUCCESS)
}
