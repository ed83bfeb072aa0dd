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
    let (mut sum, mut bytes) = (0.0, 0);
    for windows in starts.chunks(batch) {
        let batch = if config.training.packed {
            Batch::packed(&corpus.valid, windows, context, device)
        } else {
            Batch::new(&corpus.valid, windows, context, device)
        };
        let predicted = batch.predicted();
        sum += model.loss(batch).loss.try_into_scalar::<f64>()? * predicted as f64;
        bytes += predicted;
    }
    Ok(Evaluation {
        baselines: baselines(config, corpus, &starts),
        model: sum / bytes as f64,
        bytes,
    })
}

/// What byte counts alone reach on the bytes that the model predicts, in windows of the held out text.
pub fn baselines(config: &RunConfig, corpus: &Corpus, starts: &[usize]) -> Baselines {
    let (valid, packed) = (&corpus.valid, config.training.packed);
    let asked = |at: usize| !(packed && valid.begins_document(at));
    NGrams::fit(&corpus.train).cross_entropy(valid, starts, config.model.context, asked)
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
