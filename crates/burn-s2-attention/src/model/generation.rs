//! What generation is asked for, and what it gives.

use burn::config::Config;

use crate::S2AttentionError;

/// How [`HybridTransformer::generate`](super::HybridTransformer::generate) goes on. The default takes the likeliest token
/// (greedy).
///
/// ```
/// use burn_s2_attention::model::GenerationConfig;
///
/// // At most 400 tokens, drawn among the 40 likeliest, up to a token 2.
/// let config = GenerationConfig::new(400)
///     .with_temperature(0.6)
///     .with_top_k(Some(40))
///     .with_stop_tokens(vec![2]);
/// assert!(config.check().is_ok());
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that each prompt is continued by, at most. More than are written take no pages, but tables of the whole length of the
    /// longest prompt and these, for every sequence: 8 bytes for each block that the fullest key/value head can hold, of each
    /// pattern and key/value head, on the host and on the device, from the first step on. 10 million tokens in blocks of 16, of 8
    /// dense heads, are 40 MB a sequence; see [`KvCacheConfig::max_tokens`](crate::cache::KvCacheConfig::max_tokens). For a text
    /// without an end, give what it may need and go on from its tokens.
    pub max_new_tokens: usize,
    /// The divisor of the logits: below 1 likely tokens get likelier; 0 takes the likeliest, which `top_k` and `top_p` leave in
    /// any case.
    #[config(default = 0.0)]
    pub temperature: f64,
    /// Draw among this many likeliest tokens, or all where there are no more; `None` for all.
    pub top_k: Option<usize>,
    /// Draw among the fewest tokens whose probabilities sum to this much; `None` for all.
    pub top_p: Option<f64>,
    /// Seed of the draws. Those of a prompt follow from it and from the number of the prompt.
    #[config(default = 0)]
    pub seed: u64,
    /// Tokens that end a sequence. They are not part of it. The model must know them.
    #[config(default = "vec![]")]
    pub stop_tokens: Vec<u32>,
    /// Tokens of prompts that are read in one step, at most. It bounds memory, and changes results by rounding alone.
    #[config(default = 8192)]
    pub prefill_chunk: usize,
    /// Whether the cache frees what no later token attends; off, it keeps everything, and the tokens are the same.
    #[config(default = true)]
    pub evict: bool,
}

impl GenerationConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// With the value seen and what would be accepted.
    pub fn check(&self) -> Result<(), GenerationError> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(GenerationError::Temperature {
                value: self.temperature,
            });
        }
        if self.top_k == Some(0) {
            return Err(GenerationError::TopK);
        }
        if let Some(value) = self.top_p
            && !(value > 0.0 && value <= 1.0)
        {
            return Err(GenerationError::TopP { value });
        }
        if self.prefill_chunk == 0 {
            return Err(GenerationError::PrefillChunk);
        }
        Ok(())
    }
}

/// A token as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratedToken {
    /// The number of the prompt.
    pub prompt: usize,
    /// Tokens that came before it, those of the prompt not counted.
    pub index: usize,
    /// The token.
    pub token: u32,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// It has `max_new_tokens`.
    Length,
    /// The model gave this stop token, which is left out.
    StopToken(u32),
    /// The caller asked for it.
    Stopped,
}

/// The continuation of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedSequence {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: FinishReason,
}

/// What was generated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Generation {
    /// The continuations, in the order of the prompts.
    pub sequences: Vec<GeneratedSequence>,
    /// The cache, and one that keeps everything, each when it was largest.
    pub cache: CacheUse,
}

/// What a cache takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheUse {
    /// The most bytes between two steps.
    pub bytes: usize,
    /// The most bytes of a cache that keeps everything, with the same sequences: at the end of the longest ones.
    pub full_bytes: usize,
}

/// A generation that cannot be honoured. Every message names the values seen and what would be accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// There is nothing to continue.
    #[error("prompt {prompt} is empty; the model needs at least one token to continue")]
    EmptyPrompt {
        /// The number of the prompt.
        prompt: usize,
    },
    /// A token that the model does not know.
    #[error("prompt {prompt} has token {token}; the model knows tokens below {vocab_size}")]
    Token {
        /// The number of the prompt.
        prompt: usize,
        /// The token.
        token: u32,
        /// Distinct tokens of the model.
        vocab_size: usize,
    },
    /// A stop token that never comes.
    #[error("stop token {token} never comes; the model knows tokens below {vocab_size}")]
    StopToken {
        /// The token.
        token: u32,
        /// Distinct tokens of the model.
        vocab_size: usize,
    },
    /// A temperature that means nothing.
    #[error("temperature is {value}; it must be a finite number from 0 on")]
    Temperature {
        /// The value given.
        value: f64,
    },
    /// No candidates.
    #[error("top_k is 0, which leaves nothing to draw from; it must be at least 1")]
    TopK,
    /// A probability out of range.
    #[error("top_p is {value}; it must be above 0 and at most 1")]
    TopP {
        /// The value given.
        value: f64,
    },
    /// Steps without tokens.
    #[error("prefill_chunk is 0; a step reads at least 1 token")]
    PrefillChunk,
    /// Logits that no token can be drawn from.
    #[error(
        "the logits hold NaN or infinity, or all are minus infinity; a token is drawn from finite ones"
    )]
    Logits,
    /// The device failed.
    #[error("cannot read the logits: {reason}")]
    Device {
        /// What it says.
        reason: String,
    },
    /// The cache or the attention refuses the model.
    #[error(transparent)]
    Attention(#[from] S2AttentionError),
}
