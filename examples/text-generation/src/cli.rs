//! The command line.

use std::path::PathBuf;

use burn_s2_attention::DenseLayers;
use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Attention, Dtype, Preset, RunConfig},
    device::DeviceName,
};

/// Trains a byte-level hybrid sparse/dense language model and writes with it.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it, `train`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `train`.
    #[command(flatten)]
    pub train: TrainArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model, write a sample with it, and report (the default).
    Train(Box<TrainArgs>),
    /// Write with a trained model.
    Generate(GenerateArgs),
    /// Show which blocks each head of each layer attends.
    Patterns(PatternsArgs),
    /// Put the losses of several runs beside each other.
    Compare(CompareArgs),
}

impl Cli {
    /// The command given, or `train` with the options given.
    pub fn command(self) -> Command {
        self.command
            .unwrap_or_else(|| Command::Train(Box::new(self.train)))
    }
}

/// Options of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Continue a run from its newest complete checkpoint, with its own options.
    #[arg(long, conflicts_with_all = ["ModelArgs", "TrainingArgs", "preset"])]
    pub resume: bool,
    /// Sizes to start from; the other options change them.
    #[arg(long, value_enum, default_value = "cpu")]
    pub preset: Preset,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The training.
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Where the run is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Stop at the end of the first interval that ends after this many minutes.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Bytes of the sample written at the end.
    #[arg(long, default_value_t = 400)]
    pub sample_bytes: usize,
}

/// Options of the model.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Bytes the model reads at once.
    #[arg(long)]
    pub context: Option<usize>,
    /// Width of the residual stream.
    #[arg(long)]
    pub d_model: Option<usize>,
    /// Number of layers.
    #[arg(long)]
    pub layers: Option<usize>,
    /// Query heads of each layer.
    #[arg(long)]
    pub heads: Option<usize>,
    /// Key/value heads of each layer (grouped-query attention); as many as query heads by default.
    #[arg(long)]
    pub kv_heads: Option<usize>,
    /// `hybrid`, or `dense` for the same model with every layer dense.
    #[arg(long, value_enum)]
    pub attention: Option<Attention>,
    /// Tokens in one block.
    #[arg(long)]
    pub block_size: Option<usize>,
    /// Blocks every query sees before it, its own included.
    #[arg(long)]
    pub local_blocks: Option<usize>,
    /// Beyond those, every how many-th block is seen, other ones by each head.
    #[arg(long)]
    pub vert_stride: Option<usize>,
    /// Dense layers: `first:2`, `every:2`, `none`, or their numbers from 0, as `0,3`.
    #[arg(long, value_parser = dense_layers)]
    pub dense_layers: Option<DenseLayers>,
    /// Type of parameters and activations.
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
}

/// Options of the training.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Text file or folder to train on; by default, Rust sources in Cargo's cache.
    #[arg(long, value_name = "PATH")]
    pub corpus: Option<PathBuf>,
    /// Windows in one step.
    #[arg(long)]
    pub batch: Option<usize>,
    /// Optimizer steps in all.
    #[arg(long)]
    pub steps: Option<usize>,
    /// Steps between validations and checkpoints.
    #[arg(long)]
    pub interval: Option<usize>,
    /// Bytes validated on at the end of each interval.
    #[arg(long)]
    pub valid_bytes: Option<usize>,
    /// Highest learning rate.
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Steps over which the learning rate rises to it; at most a tenth of all by default.
    #[arg(long)]
    pub warmup: Option<usize>,
    /// Weight decay of AdamW.
    #[arg(long)]
    pub weight_decay: Option<f32>,
    /// Largest global norm of the gradients.
    #[arg(long)]
    pub max_grad_norm: Option<f32>,
    /// Stop when the validation loss has not improved for this many intervals.
    #[arg(long, value_name = "INTERVALS")]
    pub patience: Option<usize>,
    /// Train on documents: attention and positions begin anew in each file of the corpus. By default windows of text know no
    /// files.
    #[arg(long)]
    pub packed: bool,
    /// Seed of parameters and data order.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Where runs are kept and computed.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Name of the run; by default a new one, with --resume or `generate` the newest.
    #[arg(long, value_name = "NAME")]
    pub run: Option<String>,
    /// Folder that holds the runs.
    #[arg(long, default_value = "artifacts")]
    pub artifacts: PathBuf,
    /// Device, e.g. `flex`, `cuda`, `vulkan:1`; by default the best one this binary is built for.
    #[arg(long, env = "BURN_DEVICE")]
    pub device: Option<DeviceName>,
}

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Text to continue.
    #[arg(long)]
    pub prompt: String,
    /// Bytes to write. The cache's tables are made for all of them before the first: for each head 8 bytes for each block that it
    /// can keep.
    #[arg(long, default_value_t = 400)]
    pub bytes: usize,
    /// How bytes are read and drawn.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Where the run is.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// How bytes are read and drawn.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Below 1 likely bytes get likelier; 0 always takes the likeliest.
    #[arg(long, default_value_t = Self::default().temperature)]
    pub temperature: f64,
    /// Draw among this many likeliest bytes.
    #[arg(long, default_value_t = Self::default().top_k)]
    pub top_k: usize,
    /// Draw among the fewest bytes whose probabilities sum to this much; by default among all that --top-k leaves.
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, default_value_t = Self::default().seed)]
    pub seed: u64,
    /// Bytes of the prompt that are read at once.
    #[arg(long, default_value_t = Self::default().prefill_chunk)]
    pub prefill_chunk: usize,
}

impl Default for SamplingArgs {
    fn default() -> Self {
        Self {
            temperature: 0.6,
            top_k: 40,
            top_p: None,
            seed: 0,
            prefill_chunk: 8192,
        }
    }
}

/// Options of `patterns`.
#[derive(Debug, Args)]
pub struct PatternsArgs {
    /// Sizes to start from; the other options change them.
    #[arg(long, value_enum, default_value = "cpu")]
    pub preset: Preset,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Picture to write.
    #[arg(long, default_value = "patterns.svg")]
    pub out: PathBuf,
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Names of two runs or more; differences are from the first.
    #[arg(required = true, num_args = 2..)]
    pub runs: Vec<String>,
    /// Folder that holds the runs.
    #[arg(long, default_value = "artifacts")]
    pub artifacts: PathBuf,
    /// Picture to write.
    #[arg(long, default_value = "losses.svg")]
    pub out: PathBuf,
}

fn dense_layers(text: &str) -> Result<DenseLayers, String> {
    let number = |text: &str| {
        text.trim().parse().map_err(|_| {
            format!("`{text}` is no number: `first:2`, `every:2`, `none` or `0,3` are accepted")
        })
    };
    match text.split_once(':') {
        _ if text == "none" => Ok(DenseLayers::None),
        Some(("first", count)) => Ok(DenseLayers::First(number(count)?)),
        Some(("every", period)) => Ok(DenseLayers::Every(number(period)?)),
        _ => Ok(DenseLayers::Listed(
            text.split(',').map(number).collect::<Result<_, _>>()?,
        )),
    }
}

/// The configuration of a preset, changed by the options given.
pub fn configure(preset: Preset, model: ModelArgs, training: TrainingArgs) -> RunConfig {
    let mut config = RunConfig::preset(preset);
    let heads = model.heads;
    macro_rules! set {
        ($part:ident: $($field:ident)*) => {
            $(if let Some(value) = $part.$field { config.$part.$field = value; })*
        };
    }
    set!(model: context d_model layers heads attention block_size local_blocks vert_stride
        dense_layers dtype);
    config.model.kv_heads = model.kv_heads.or(heads).unwrap_or(config.model.kv_heads);
    set!(training: batch steps interval valid_bytes learning_rate warmup weight_decay max_grad_norm seed);
    // A short run warms up in proportion, unless told how.
    if training.warmup.is_none() {
        let tenth = config.training.steps / 10;
        config.training.warmup = config.training.warmup.min(tenth).max(1);
    }
    config.training.corpus = training.corpus;
    config.training.patience = training.patience;
    config.training.packed = training.packed;
    config
}
