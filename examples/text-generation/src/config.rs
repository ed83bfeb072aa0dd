//! What a run is: everything that decides its result, saved beside its checkpoints.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use burn_s2_attention::{DenseLayers, LayerSchedule, PatternConfig};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Whether the layers that are not dense are sparse or dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// Dense layers where `--dense-layers` says so, sparse layers elsewhere.
    Hybrid,
    /// The same model with every layer dense.
    Dense,
}

/// Type of the parameters and activations.
///
/// Not f16: the second moments of AdamW leave its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with the range of f32.
    Bf16,
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// The model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Bytes the model reads at once.
    pub context: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads of each layer.
    pub heads: usize,
    /// Key/value heads of each layer.
    pub kv_heads: usize,
    /// Sparse or dense attention in the layers that are not dense anyway.
    pub attention: Attention,
    /// Tokens in one block.
    pub block_size: usize,
    /// Blocks every query sees before it, its own included.
    pub local_blocks: usize,
    /// Beyond those, every how many-th block is seen.
    pub vert_stride: usize,
    /// Layers that are dense.
    pub dense_layers: DenseLayers,
    /// Type of parameters and activations.
    pub dtype: Dtype,
}

impl ModelConfig {
    /// The pattern of every layer.
    pub fn schedule(&self) -> LayerSchedule {
        let sparse = PatternConfig::local_stride(
            self.local_blocks,
            self.vert_stride,
            self.block_size,
            self.heads,
        );
        let dense = match self.attention {
            Attention::Hybrid => self.dense_layers.clone(),
            Attention::Dense => DenseLayers::First(self.layers),
        };
        LayerSchedule::new(sparse.with_num_kv_heads(self.kv_heads)).with_dense_layers(dense)
    }
}

/// The training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// File or folder trained on; `None` is the default corpus.
    pub corpus: Option<std::path::PathBuf>,
    /// SHA-256 of the corpus, so that a resumed run continues on the same text.
    pub corpus_hash: String,
    /// Windows in one step.
    pub batch: usize,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Steps between validations and checkpoints; the last interval may be shorter.
    pub interval: usize,
    /// Bytes validated on at the end of each interval.
    pub valid_bytes: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises to it.
    pub warmup: usize,
    /// Weight decay of AdamW.
    pub weight_decay: f32,
    /// Largest global norm of the gradients.
    pub max_grad_norm: f32,
    /// Intervals without a lower validation loss after which training stops.
    pub patience: Option<usize>,
    /// Whether each file of the corpus is a document of its own: attention and positions begin anew in it, and its first
    /// byte is not predicted.
    #[serde(default)]
    pub packed: bool,
    /// Seed of parameters and data order.
    pub seed: u64,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// The model.
    pub model: ModelConfig,
    /// How it is trained.
    pub training: TrainingConfig,
}

/// Sizes that fit a machine or a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// About three minutes on two CPU cores.
    Cpu,
    /// Seconds: shows that everything runs.
    Tiny,
}

impl RunConfig {
    /// The configuration of a preset, with the default corpus.
    pub fn preset(preset: Preset) -> Self {
        let cpu = Self {
            model: ModelConfig {
                context: 512,
                d_model: 128,
                layers: 4,
                heads: 4,
                kv_heads: 4,
                attention: Attention::Hybrid,
                block_size: 16,
                local_blocks: 4,
                vert_stride: 4,
                dense_layers: DenseLayers::First(1),
                dtype: Dtype::F32,
            },
            training: TrainingConfig {
                corpus: None,
                corpus_hash: String::new(),
                batch: 2,
                steps: 1800,
                interval: 150,
                valid_bytes: 32 * 1024,
                learning_rate: 4e-3,
                warmup: 100,
                weight_decay: 0.1,
                max_grad_norm: 1.0,
                patience: None,
                packed: false,
                seed: 42,
            },
        };
        match preset {
            Preset::Cpu => cpu,
            Preset::Tiny => Self {
                model: ModelConfig {
                    context: 256,
                    d_model: 64,
                    layers: 2,
                    ..cpu.model
                },
                training: TrainingConfig {
                    batch: 4,
                    steps: 400,
                    interval: 100,
                    valid_bytes: 16 * 1024,
                    learning_rate: 8e-3,
                    warmup: 20,
                    ..cpu.training
                },
            },
        }
    }

    /// Intervals in all.
    pub fn intervals(&self) -> usize {
        self.training.steps.div_ceil(self.training.interval)
    }

    /// Windows validated on at the end of each interval, at most.
    pub fn valid_windows(&self) -> usize {
        (self.training.valid_bytes / self.model.context).max(self.training.batch)
    }

    /// Checks what no later stage checks.
    ///
    /// # Errors
    ///
    /// With the values seen and what would be accepted.
    pub fn check(&self) -> Result<()> {
        let TrainingConfig {
            steps,
            interval,
            batch,
            warmup,
            ..
        } = self.training;
        ensure!(batch > 0, "--batch is 0: a step needs at least one window");
        ensure!(steps > 1, "--steps {steps} is too few: at least 2");
        ensure!(interval > 0, "--interval is 0: at least 1 step");
        ensure!(
            warmup > 0 && warmup < steps,
            "--warmup {warmup} is not between 1 and {}, one less than --steps",
            steps - 1
        );
        let rate = self.training.learning_rate;
        ensure!(
            rate > 0.0 && rate <= 1.0,
            "--learning-rate {rate} is not above 0 and at most 1"
        );
        let decay = self.training.weight_decay;
        ensure!(
            decay >= 0.0 && decay.is_finite(),
            "--weight-decay {decay} is not a number from 0 on"
        );
        let norm = self.training.max_grad_norm;
        ensure!(
            norm > 0.0 && norm.is_finite(),
            "--max-grad-norm {norm} is not a number above 0"
        );
        ensure!(
            self.training.patience != Some(0),
            "--patience is 0: at least 1 interval"
        );
        ensure!(
            self.model.context >= 2,
            "--context {} is too short: at least 2",
            self.model.context
        );
        Ok(())
    }

    /// Reads a saved configuration.
    ///
    /// # Errors
    ///
    /// Where it is missing or not one.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{}` is no run configuration", path.display()))
    }

    /// Saves the configuration.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write `{}`", path.display()))
    }
}
