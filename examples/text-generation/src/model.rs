//! The language model and its two steps: learning and validation.

use anyhow::Result;
use burn::{
    module::{Module, ModuleMapper, Param},
    nn::loss::CrossEntropyLossConfig,
    tensor::{Device, FloatDType, Int, Tensor},
    train::{InferenceStep, SequenceOutput, TrainOutput, TrainStep},
};

use burn_s2_attention::model::{HybridTransformer, HybridTransformerConfig};

use crate::{
    config::{ModelConfig, RunConfig},
    data::{Batch, Documents},
    training::clip_by_global_norm,
};

/// Distinct tokens: bytes.
const VOCABULARY: usize = 256;

/// Casts parameters.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dtype = self.0;
        param.map(|value| {
            let tracked = value.is_require_grad();
            value.detach().cast(dtype).set_require_grad(tracked)
        })
    }
}

/// A byte-level language model.
#[derive(Module, Debug)]
pub struct LanguageModel {
    transformer: HybridTransformer,
    max_grad_norm: f64,
}

impl LanguageModel {
    /// A model with the random parameters of the run's seed: drawn on the CPU, so that the same ones are trained on every
    /// device.
    ///
    /// # Errors
    ///
    /// Where the sizes or the pattern mean nothing.
    pub fn new(config: &RunConfig, device: &Device) -> Result<Self> {
        // Flex takes its float type from `device` where it is that; elsewhere it has its own, f32.
        let cpu = Device::flex();
        let on_cpu = device.clone().inner() == cpu;
        let drawn_on = if on_cpu {
            device.clone()
        } else {
            cpu.autodiff()
        };
        drawn_on.seed(config.training.seed);
        let ModelConfig {
            d_model,
            layers,
            heads,
            ..
        } = config.model;
        let schedule = config.model.schedule();
        let transformer =
            HybridTransformerConfig::new(VOCABULARY, d_model, layers, heads, schedule)
                .try_init(&drawn_on)?;
        let model = Self {
            transformer,
            max_grad_norm: config.training.max_grad_norm.into(),
        };
        // Parameters are drawn when they are first asked for: by the cast, before they move.
        Ok(if on_cpu {
            model
        } else {
            let model = model.map(&mut Cast(config.model.dtype.into()));
            model.fork(device)
        })
    }

    /// Logits of the byte after each byte, `[batch, seq]` to `[batch, seq, 256]`.
    pub fn forward(&self, bytes: Tensor<2, Int>) -> Tensor<3> {
        self.transformer.forward(bytes)
    }

    /// What computes the logits.
    pub fn transformer(&self) -> &HybridTransformer {
        &self.transformer
    }

    /// The mean cross-entropy of a batch in nats, and what metrics need.
    pub fn loss(&self, batch: Batch) -> SequenceOutput {
        let [windows, context] = batch.inputs.dims();
        let flat = |logits: Tensor<3>| logits.reshape([windows * context, VOCABULARY]);
        let targets = batch.targets.reshape([windows * context]);
        let (logits, targets) = match batch.documents {
            Some(Documents { parts, predicted }) => {
                let logits = flat(self.transformer.forward_packed(batch.inputs, &parts));
                let targets = targets.select(0, predicted.clone());
                (logits.select(0, predicted), targets)
            }
            None => (flat(self.forward(batch.inputs)), targets),
        };
        // In f32 whatever the model computes in: the loss of many bytes is a long sum.
        let logits = logits.cast(FloatDType::F32);
        let loss = CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), targets.clone());
        SequenceOutput::new(
            loss,
            logits.unsqueeze_dim(0),
            None,
            targets.unsqueeze_dim(0),
        )
    }
}

impl TrainStep for LanguageModel {
    type Input = Batch;
    type Output = SequenceOutput;

    fn step(&self, batch: Batch) -> TrainOutput<SequenceOutput> {
        let output = self.loss(batch);
        let mut output = TrainOutput::new(self, output.loss.backward(), output);
        output.grads = clip_by_global_norm(self, output.grads, self.max_grad_norm);
        output
    }
}

impl InferenceStep for LanguageModel {
    type Input = Batch;
    type Output = SequenceOutput;

    fn step(&self, batch: Batch) -> SequenceOutput {
        self.loss(batch)
    }
}
