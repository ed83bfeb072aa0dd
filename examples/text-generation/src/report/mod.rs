//! What a run leaves behind for people: `report.md`, `loss.svg`, `patterns.svg`.

mod history;
mod loss_plot;
mod pattern_plot;

use std::{fs, time::Duration};

use anyhow::{Context, Result};

pub use history::History;
pub use loss_plot::draw_losses;
pub use pattern_plot::{describe_patterns, draw_patterns, picture};

use crate::{config::RunConfig, data::Corpus, evaluate::Evaluation, run_dir::RunDir};

/// What is told about a run.
pub struct Report<'a> {
    /// What it was.
    pub config: &'a RunConfig,
    /// What it was trained on.
    pub corpus: &'a Corpus,
    /// How it went.
    pub history: &'a History,
    /// How well it predicts.
    pub evaluation: &'a Evaluation,
    /// Parameters of the model.
    pub parameters: usize,
    /// The device, in words.
    pub device: String,
    /// Time spent training in this process, and the interval it began after.
    pub time: (Duration, usize),
    /// Why training ended before its last step.
    pub stopped: Option<String>,
    /// The prompt and what the model wrote.
    pub sample: (String, String),
}

impl Report<'_> {
    /// Writes `report.md`.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn write(&self, run: &RunDir) -> Result<()> {
        let path = run.report();
        fs::write(&path, self.markdown(&run.name())?)
            .with_context(|| format!("cannot write `{}`", path.display()))
    }

    fn markdown(&self, name: &str) -> Result<String> {
        let Self {
            config,
            corpus,
            history,
            evaluation,
            parameters,
            device,
            sample,
            ..
        } = self;
        let (time, done) = self.time;
        let (model, training) = (&config.model, &config.training);
        let mut text = format!("# Run {name}\n\n{}\n", evaluation.table());
        text += &format!(
            "Over {} bytes held out. The loss per step: ![loss](loss.svg)\n\n",
            evaluation.bytes
        );
        let mut rows = vec![
            ("parameters", parameters.to_string()),
            (
                "layers",
                format!(
                    "{} x {} ({} heads, {} key/value heads)",
                    model.layers, model.d_model, model.heads, model.kv_heads
                ),
            ),
            ("attention", format!("{:?}", model.attention).to_lowercase()),
            ("context", format!("{} bytes", model.context)),
            ("corpus", corpus.name.clone()),
            (
                "split",
                format!(
                    "{} ({} bytes to train on, {} held out)",
                    corpus.split,
                    corpus.train.len(),
                    corpus.valid.len()
                ),
            ),
            ("SHA-256 of the corpus", corpus.hash.clone()),
            (
                "steps",
                format!("{} of {} windows", training.steps, training.batch),
            ),
            (
                "optimizer",
                format!(
                    "AdamW, learning rate {} after {} steps, weight decay {}, gradient norm at most {}",
                    training.learning_rate,
                    training.warmup,
                    training.weight_decay,
                    training.max_grad_norm
                ),
            ),
            ("seed", training.seed.to_string()),
            (
                "device",
                format!("{device}, {:?}", model.dtype).to_lowercase(),
            ),
            (
                "training speed",
                format!("{:.0} tokens/s", history.tokens_per_second()),
            ),
            (
                "training time",
                match done {
                    0 => format!("{:.0} s, validation included", time.as_secs_f64()),
                    _ => format!(
                        "{:.0} s since it was resumed after interval {done}",
                        time.as_secs_f64()
                    ),
                },
            ),
        ];
        if let Some(stopped) = &self.stopped {
            rows.push(("stopped early", stopped.clone()));
        }
        text += "| | |\n|---|---|\n";
        for (name, value) in rows {
            text += &format!("| {name} | {value} |\n");
        }
        let patterns = describe_patterns(model)?;
        text += &format!("\n## Patterns\n\n![patterns](patterns.svg)\n\n```text\n{patterns}```\n");
        text += &format!(
            "\n## Sample\n\nPrompt and continuation:\n\n```text\n{}{}\n```\n",
            sample.0, sample.1
        );
        Ok(text)
    }
}
