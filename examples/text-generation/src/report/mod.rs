//! What a run leaves behind for people: `report.md`, `loss.svg`, `patterns.svg`.

mod comparison;
mod history;
mod loss_plot;
mod pattern_plot;

use std::{fs, time::Duration};

use anyhow::{Context, Result};

pub use comparison::Comparison;
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
        let mut text = format!("# Run {name}\n\n{}\n", self.evaluation.table());
        text += &format!("Over {} bytes held out.\n\n", self.evaluation.bytes);
        text += "![loss over the steps](loss.svg)\n\n| | |\n|---|---|\n";
        for (name, value) in self.facts() {
            text += &format!("| {name} | {value} |\n");
        }
        let patterns = describe_patterns(&self.config.model)?;
        text += "\n## Patterns\n\n![blocks that each head attends](patterns.svg)\n\n";
        text += &format!("```text\n{patterns}```\n");
        // What the model writes may have fences of three.
        let (prompt, continuation) = &self.sample;
        text += "\n## Sample\n\nPrompt and continuation:\n\n";
        text += &format!("`````text\n{prompt}{continuation}\n`````\n");
        Ok(text)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Self { config, corpus, .. } = self;
        let (model, training) = (&config.model, &config.training);
        let heads = format!("{} heads, {} key/value heads", model.heads, model.kv_heads);
        let sizes = format!(
            "{} bytes to train on, {} held out",
            corpus.train.len(),
            corpus.valid.len()
        );
        let (time, done) = self.time;
        let since = match done {
            0 => "validation included".into(),
            _ => format!("since it was resumed after interval {done}"),
        };
        let mut facts = vec![
            ("parameters", self.parameters.to_string()),
            (
                "layers",
                format!("{} of width {}, {heads}", model.layers, model.d_model),
            ),
            ("context", format!("{} bytes", model.context)),
            ("corpus", corpus.name.clone()),
            ("split", format!("{}: {sizes}", corpus.split)),
            ("SHA-256 of the corpus", corpus.hash.clone()),
            (
                "steps",
                format!("{} of {} windows", training.steps, training.batch),
            ),
            (
                "learning rate",
                format!(
                    "{} after {} steps, then a cosine",
                    training.learning_rate, training.warmup
                ),
            ),
            ("weight decay", training.weight_decay.to_string()),
            ("largest gradient norm", training.max_grad_norm.to_string()),
            ("seed", training.seed.to_string()),
            ("device", format!("{}, {}", self.device, model.dtype)),
            (
                "training speed",
                format!("{:.0} tokens/s", self.history.tokens_per_second()),
            ),
            (
                "training time",
                format!("{:.0} s, {since}", time.as_secs_f64()),
            ),
        ];
        if training.packed {
            let (train, valid) = (corpus.train.documents(), corpus.valid.documents());
            let documents = format!("{train} to train on, {valid} held out, packed");
            facts.push(("documents", documents));
        }
        if let Some(stopped) = &self.stopped {
            facts.push(("stopped early", stopped.clone()));
        }
        facts
    }
}
