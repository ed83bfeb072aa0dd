//! What a token takes after a long prompt: one line of JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::{Backend, Dtype, Origin, Record};

/// A model that writes one sequence. Its layers are dense, or have the same local + stride pattern for all query heads of a key/value
/// head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    /// Shared by all rows of one command.
    pub run: String,
    /// What it ran on.
    pub backend: Backend,
    /// Type of weights, keys and values.
    pub dtype: Dtype,
    /// Layers.
    pub layers: usize,
    /// How many of them, from the first on, are dense.
    pub dense_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the feed-forward networks.
    pub d_ff: usize,
    /// Query heads of each layer.
    pub heads: usize,
    /// Key/value heads of each layer.
    pub kv_heads: usize,
    /// Tokens a block.
    pub block: usize,
    /// Local window in blocks, the diagonal included.
    pub local_blocks: usize,
    /// Vertical stride in blocks.
    pub vert_stride: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt that were read at a time.
    pub chunk: usize,
    /// Seconds that the prompt took: the median of its readings after the first.
    pub prompt_seconds: f64,
    /// How many those are; rows before there was a choice are of one and do not say.
    pub readings: Option<usize>,
    /// Milliseconds from one token to the next, the median.
    pub token_ms: f64,
    /// The least.
    pub least_ms: f64,
    /// Tokens that were timed.
    pub tokens: usize,
    /// Whether the step was replayed as a graph of the device.
    pub captured: bool,
    /// How weights lay; rows before there was a choice do not say.
    pub weights: Option<WeightOrder>,
    /// Bytes of the cache in use after the last token.
    pub memory_bytes: usize,
    /// Bytes of a cache that keeps everything.
    pub full_bytes: usize,
    /// The machine.
    pub device: String,
    /// Its driver; `null` where there is none.
    pub driver: Option<String>,
    /// Start of the run, UTC.
    pub date: String,
    /// The commit; `-dirty` after it if the tree had changes.
    pub commit: String,
    /// Versions of what ran.
    pub versions: BTreeMap<String, String>,
}

/// How the weights of linear layers, `[inputs, outputs]`, lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "command", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum WeightOrder {
    /// The outputs of an input next to each other: as Burn makes them.
    Rows,
    /// The inputs of an output next to each other: `column_major`.
    Columns,
}

impl fmt::Display for WeightOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rows => "row by row",
            Self::Columns => "column by column",
        })
    }
}

impl Record for TokenRow {
    fn run(&self) -> &str {
        &self.run
    }
}

impl Origin for TokenRow {
    fn device(&self) -> &str {
        &self.device
    }

    fn commit(&self) -> &str {
        &self.commit
    }
}

impl fmt::Display for TokenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / (1_u64 << 30) as f64;
        write!(
            f,
            "{} of {} layers dense: {:.2} ms a token after {} tokens, which took {:.1} s in chunks of {}; cache {:.2} GiB of {:.2}{}",
            self.dense_layers,
            self.layers,
            self.token_ms,
            self.prompt,
            self.prompt_seconds,
            self.chunk,
            gib(self.memory_bytes),
            gib(self.full_bytes),
            if self.captured { "" } else { "; not captured" }
        )?;
        match self.weights {
            Some(order) => write!(f, "; weights {order}"),
            None => Ok(()),
        }
    }
}
