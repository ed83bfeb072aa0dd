//! `train`: a new run or the rest of one, then a sample and the report.

use std::{
    io::{Write, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use burn::{module::Module, train::Interrupter};

use crate::{
    cli::{PlaceArgs, SamplingArgs, TrainArgs, configure},
    config::{Attention, RunConfig},
    data::Corpus,
    device,
    evaluate::evaluate,
    generate::{config as generation, generate},
    model::LanguageModel,
    report::{History, Report, describe_patterns, draw_losses, draw_patterns},
    run_dir::RunDir,
    training::{Session, forget_after, newest_complete},
};

/// Exit code of a program that was interrupted, by custom.
const INTERRUPTED: u8 = 130;

/// A run to be trained from the end of interval `done`.
struct Task {
    /// The folder of a run that is continued.
    run: Option<RunDir>,
    config: RunConfig,
    corpus: Corpus,
    done: usize,
}

pub(super) fn run(args: TrainArgs) -> Result<ExitCode> {
    let place = args.place.clone();
    let limit = match args.minutes {
        Some(minutes) => Some(
            Duration::try_from_secs_f64(60.0 * minutes)
                .with_context(|| format!("--minutes {minutes} is no length of time"))?,
        ),
        None => None,
    };
    let sample_bytes = args.sample_bytes;
    let task = if args.resume {
        resume(&place)?
    } else {
        begin(args)?
    };
    let Task {
        run,
        config,
        corpus,
        done,
    } = task;
    let device = device::open(place.device.as_ref(), config.model.dtype)?;
    let model = LanguageModel::new(&config, &device.clone().autodiff())?;
    // Only now that nothing in the configuration can fail, so that no empty runs are left behind.
    let run = match run {
        Some(run) => run,
        None => create(&place, &config)?,
    };

    let mut out = stdout();
    writeln!(out, "run     {}", run.path().display())?;
    writeln!(out, "corpus  {}", corpus.name)?;
    let (train_bytes, valid_bytes) = (corpus.train.len(), corpus.valid.len());
    writeln!(
        out,
        "        {train_bytes} bytes to train on, {valid_bytes} held out, split {}",
        corpus.split
    )?;
    if config.training.packed {
        let (train, valid) = (corpus.train.documents(), corpus.valid.documents());
        writeln!(out, "        {train} documents and {valid}, packed")?;
    }
    writeln!(out, "        SHA-256 {}", corpus.hash)?;
    write!(out, "{}", describe_patterns(&config.model)?)?;

    let interrupter = Interrupter::new();
    stop_on_ctrl_c(&interrupter)?;
    let start = Instant::now();
    let session = Session {
        config: &config,
        corpus: &corpus,
        run: &run,
        device: &device,
        done,
        limit,
    };
    let Some(trained) = session.train(model, interrupter)? else {
        let (artifacts, name) = (place.artifacts.display(), run.name());
        eprintln!(
            "interrupted: `train --resume --artifacts {artifacts} --run {name}` continues it"
        );
        return Ok(INTERRUPTED.into());
    };
    let time = start.elapsed();
    trained.model.clone().into_record().save(run.model())?;

    let evaluation = evaluate(&trained.model, &config, &corpus, &device)?;
    writeln!(out, "\n{}", evaluation.table())?;
    write!(out, "{}", corpus.prompt)?;
    let sample = generate(
        &trained.model,
        &corpus.prompt,
        &generation(&SamplingArgs::default(), sample_bytes)?,
        &mut out,
    )?;
    writeln!(out, "\n\n{sample}")?;

    let history = History::read(&run, &config);
    draw_losses(&history, trained.baselines, &run.loss_plot())?;
    draw_patterns(&config.model, &run.pattern_plot())?;
    let report = Report {
        config: &config,
        corpus: &corpus,
        history: &history,
        evaluation: &evaluation,
        parameters: trained.model.num_params(),
        device: format!("{device:?}")
            .trim_start_matches("Device<")
            .trim_end_matches('>')
            .into(),
        time: (time, done),
        stopped: trained.stopped.map(|stopped| stopped.to_string()),
        sample: (corpus.prompt.clone(), sample.text),
    };
    report.write(&run)?;
    writeln!(out, "{}", run.report().display())?;
    Ok(ExitCode::SUCCESS)
}

/// A new run.
fn begin(args: TrainArgs) -> Result<Task> {
    let mut config = configure(args.preset, args.model, args.training);
    config.check()?;
    // Absolute, so that the run can be resumed from elsewhere; a missing file is refused below.
    if let Some(path) = &mut config.training.corpus
        && let Ok(absolute) = path.canonicalize()
    {
        *path = absolute;
    }
    let corpus = open_corpus(&config)?;
    config.training.corpus_hash = corpus.hash.clone();
    Ok(Task {
        run: None,
        config,
        corpus,
        done: 0,
    })
}

/// The folder of a new run.
fn create(place: &PlaceArgs, config: &RunConfig) -> Result<RunDir> {
    let prefix = match config.model.attention {
        Attention::Hybrid => "hybrid",
        Attention::Dense => "dense",
    };
    let run = RunDir::create(&place.artifacts, place.run.as_deref(), prefix)?;
    config.save(&run.config())?;
    Ok(run)
}

/// The rest of a run.
fn resume(place: &PlaceArgs) -> Result<Task> {
    let run = RunDir::open(&place.artifacts, place.run.as_deref())?;
    let config = RunConfig::load(&run.config())?;
    config.check()?;
    let corpus = open_corpus(&config)?;
    ensure!(
        corpus.hash == config.training.corpus_hash,
        "the corpus has changed since `{}` began (SHA-256 {} then, {} now): start a new run",
        run.path().display(),
        config.training.corpus_hash,
        corpus.hash
    );
    let (done, skipped) = newest_complete(&run.checkpoints())
        .with_context(|| format!("cannot read the checkpoints of `{}`", run.path().display()))?;
    for note in skipped {
        eprintln!("{note}: left out");
    }
    let done = done.unwrap_or(0);
    eprintln!("continuing after interval {done} of {}", config.intervals());
    forget_after(&run, done).context("cannot clean up after the interrupted run")?;
    Ok(Task {
        run: Some(run),
        config,
        corpus,
        done,
    })
}

fn open_corpus(config: &RunConfig) -> Result<Corpus> {
    let corpus = match &config.training.corpus {
        Some(path) => Corpus::open(path)?,
        None => Corpus::cargo_sources()?,
    };
    corpus.check_size(config.model.context, config.training.batch)?;
    if let Some(expected) = corpus.expected_hash
        && corpus.hash != expected
    {
        eprintln!(
            "warning: the sources in Cargo's cache are not those this example was written with: \
             results will differ a little\n  expected SHA-256 {expected}\n  found            {}",
            corpus.hash
        );
    }
    Ok(corpus)
}

/// The first Ctrl-C ends training after the present step, the second one the program.
fn stop_on_ctrl_c(interrupter: &Interrupter) -> Result<()> {
    let interrupter = interrupter.clone();
    ctrlc::set_handler(move || {
        if interrupter.should_stop() {
            std::process::exit(INTERRUPTED.into());
        }
        interrupter.stop(Some("Ctrl-C"));
    })
    .context("cannot listen for Ctrl-C")
}
