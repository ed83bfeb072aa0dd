//! Training with Burn's `Learner`, in intervals that each end with validation and a checkpoint.

mod checkpoint;
mod clip;
mod metrics;
mod progress;
mod stop;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use burn::{
    lr_scheduler::{
        LrSchedulerConfig, cosine::CosineAnnealingLrSchedulerConfig,
        linear::LinearLrSchedulerConfig, module_lr_scheduler::ModuleLrScheduler,
        sequential::SequentialLrSchedulerConfig,
    },
    module::Module,
    optim::AdamWConfig,
    store::ModuleRecord,
    tensor::Device,
    train::{
        ExecutionStrategy, Interrupter, Learner, SupervisedTraining,
        metric::{LearningRateMetric, LossMetric, PerplexityMetric},
    },
};

pub use checkpoint::{KeepNewestAndBest, forget_after, newest_complete};
pub use clip::clip_by_global_norm;
pub use metrics::{TOKENS_PER_SECOND, TokensPerSecond};
pub use progress::Progress;
pub use stop::{StopRules, Stopped};

use crate::{
    config::{RunConfig, TrainingConfig},
    data::{Baselines, Corpus, DataOrder, WindowLoader, even_windows},
    evaluate::baselines,
    model::LanguageModel,
    report::History,
    run_dir::RunDir,
};

/// What training gave.
pub struct Trained {
    /// The model, without autodiff.
    pub model: LanguageModel,
    /// Why training ended before its last step, if it did.
    pub stopped: Option<Stopped>,
    /// Baselines on the bytes validated on after each interval.
    pub baselines: Baselines,
}

/// A run, or the rest of one.
pub struct Session<'a> {
    /// What the run is.
    pub config: &'a RunConfig,
    /// What it is trained on.
    pub corpus: &'a Corpus,
    /// Where its checkpoints and logs are.
    pub run: &'a RunDir,
    /// Where it is computed.
    pub device: &'a Device,
    /// Intervals that are done: 0 for a new run.
    pub done: usize,
    /// Training stops at the end of the first interval that ends after this time.
    pub limit: Option<Duration>,
}

impl Session<'_> {
    /// Trains `model`, which is on an autodiff device, to the last step. `None` where
    /// `interrupter` stopped it: what the last whole interval gave is then in the checkpoints.
    ///
    /// # Errors
    ///
    /// Where training fails.
    pub fn train(&self, model: LanguageModel, interrupter: Interrupter) -> Result<Option<Trained>> {
        let Self {
            config,
            corpus,
            run,
            device,
            done,
            limit,
        } = *self;
        let TrainingConfig {
            batch,
            steps,
            interval,
            seed,
            ..
        } = config.training;
        let context = config.model.context;
        let order = DataOrder::new(seed, corpus.train.len(), context);
        let train = WindowLoader::training(
            corpus.train.clone(),
            order,
            batch,
            interval * batch,
            steps * batch,
            done,
            device,
        );
        let starts = even_windows(corpus.valid.len(), context, config.valid_windows(), batch);
        let baselines = baselines(config, corpus, &starts);
        let packed = config.training.packed;
        let train = train.with_packed(packed);
        let valid = WindowLoader::validation(corpus.valid.clone(), starts, context, batch, device)
            .with_packed(packed);

        let rules = StopRules {
            patience: config.training.patience,
            limit: limit.map(|time| (Instant::now(), time)),
            ..Default::default()
        };
        let stopped = rules.reason.clone();
        let optimizer = AdamWConfig::new()
            .with_beta_2(0.95)
            .with_epsilon(1e-8)
            .with_weight_decay(config.training.weight_decay)
            .init();
        // A run that was killed after its last interval, by its patience.
        if let Some(best) = self.best_so_far()
            && rules.patience_ends(best, done)
        {
            return Ok(Some(Trained {
                model: self.load(model.valid(), best)?,
                stopped: Some(Stopped::NoImprovement { best }),
                baselines,
            }));
        }
        let mut training = SupervisedTraining::new(run.path(), Arc::new(train), Arc::new(valid))
            .metrics((LossMetric::new(), PerplexityMetric::new()))
            .metric_train_numeric(LearningRateMetric::new())
            .metric_train_numeric(TokensPerSecond::new(context))
            .early_stopping(rules)
            .with_default_checkpointers()
            .with_checkpointing_strategy(KeepNewestAndBest)
            .with_training_strategy(ExecutionStrategy::single(device.clone()).into())
            .renderer(Box::new(Progress::new(config, done, baselines)))
            .with_interrupter(interrupter)
            .num_epochs(config.intervals());
        if done > 0 {
            training = training.checkpoint(done);
        }
        let result = training.launch(Learner::new(model, optimizer, schedule(&config.training)?));
        if let Some(error) = result.error {
            bail!("training failed: {error}");
        }
        if result.interrupted.is_some() {
            return Ok(None);
        }
        let stopped = stopped.get().copied();
        let model = match stopped {
            Some(Stopped::NoImprovement { best }) => self.load(result.model, best)?,
            Some(Stopped::Diverged { interval }) => {
                // What the run goes on from is the interval before.
                forget_after(run, interval - 1).context("cannot remove the last checkpoint")?;
                bail!(
                    "the loss of interval {interval} (steps of {}) is not a number: start again with a lower --learning-rate",
                    config.training.interval
                );
            }
            Some(Stopped::TimeIsUp { .. }) | None => result.model,
        };
        Ok(Some(Trained {
            model,
            stopped,
            baselines,
        }))
    }

    /// The interval with the lowest validation loss among those done, counted from 1.
    fn best_so_far(&self) -> Option<usize> {
        let history = History::read(self.run, self.config);
        let losses = history.valid.iter().take(self.done).enumerate();
        let best = losses.min_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
        best.map(|(index, _)| index + 1)
    }

    /// `model` with the weights of an interval.
    fn load(&self, model: LanguageModel, interval: usize) -> Result<LanguageModel> {
        let file = self.run.checkpoints().join(format!("model-{interval}.bpk"));
        let record = ModuleRecord::load(&file)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
        Ok(model.load_record(record))
    }
}

/// The learning rate rises in a straight line and falls along a cosine to a tenth.
fn schedule(config: &TrainingConfig) -> Result<ModuleLrScheduler> {
    let TrainingConfig {
        learning_rate: peak,
        warmup,
        steps,
        ..
    } = *config;
    let rise = LinearLrSchedulerConfig::new(peak / warmup as f64, peak, warmup);
    let fall = CosineAnnealingLrSchedulerConfig::new(peak, steps - warmup).with_min_lr(peak / 10.0);
    let schedule = SequentialLrSchedulerConfig::new(
        vec![
            LrSchedulerConfig::Linear(rise),
            LrSchedulerConfig::Cosine(fall),
        ],
        vec![warmup],
    );
    schedule
        .init()
        .map_err(|error| anyhow::anyhow!("--learning-rate {peak}: {error}"))
}
