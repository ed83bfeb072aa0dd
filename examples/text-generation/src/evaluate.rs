//! How well a model predicts the whole validation split.

use anyhow::Result;
use burn::tensor::Device;

use crate::{
    config::RunConfig,
    data::{Baselines, Batch, Corpus, NGrams, even_windows},
    model::LanguageModel,
};

/// Cross-entropies over the same bytes, in nats per byte.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation {
    /// Byte counts alone.
    pub baselines: Baselines,
    /// The model.
    pub model: f64,
    /// Bytes predicted.
    pub bytes: usize,
}

/// Evaluates on all whole windows of the validation split.
///
/// # Errors
///
/// Where the device fails.
pub fn evaluate(
    model: &LanguageModel,
    config: &RunConfig,
    corpus: &Corpus,
    device: &Device,
) -> Result<Evaluation> {
    let (context, batch) = (config.model.context, config.training.batch);
    let starts = even_windows(corpus.valid.len(), context, usize::MAX, batch);
    let mut sum = 0.0;
    for windows in starts.chunks(batch) {
        let output = model.loss(Batch::new(&corpus.valid, windows, context, device));
        sum += output.loss.try_into_scalar::<f64>()?;
    }
    Ok(Evaluation {
        baselines: NGrams::fit(&corpus.train).cross_entropy(&corpus.valid, &starts, context),
        model: sum / (starts.len() / batch) as f64,
        bytes: starts.len() * context,
    })
}

impl Evaluation {
    /// Unigram, bigram and model side by side, as a Markdown table.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| predictor | nats/byte | bits/byte | perplexity |\n|---|---:|---:|---:|\n",
        );
        let rows = [
            ("unigram", self.baselines.unigram),
            ("bigram, smoothed", self.baselines.bigram),
            ("model", self.model),
        ];
        for (name, nats) in rows {
            let (bits, perplexity) = (nats / std::f64::consts::LN_2, nats.exp());
            table += &format!("| {name:16} | {nats:.4} | {bits:.4} | {perplexity:.2} |\n");
        }
        table
    }
}
