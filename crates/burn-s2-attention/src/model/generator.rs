//! Generation, step by step.

use burn::module::Module;
use burn::tensor::{DType, Int, Tensor, TensorData};

use super::{
    CacheUse, FinishReason, GeneratedSequence, GeneratedToken, Generation, GenerationConfig,
    GenerationError, HybridTransformer, Sampler,
};
use crate::cache::{Append, KvCache, KvCacheConfig, SequenceId};

/// [`HybridTransformer::generate`], one step at a time.
///
/// In a step each sequence that has its prompt behind it gets a token, and the others read on: up to
/// [`prefill_chunk`](GenerationConfig::prefill_chunk) tokens of prompts together.
#[derive(Debug)]
pub struct Generator {
    model: HybridTransformer,
    config: GenerationConfig,
    cache: KvCache,
    sequences: Vec<Sequence>,
    largest: CacheUse,
    /// What a step failed with: sequences of that step are without keys or without their token.
    failed: Option<GenerationError>,
}

#[derive(Debug)]
struct Sequence {
    /// None once it has ended.
    id: Option<SequenceId>,
    /// What the model has not read yet, the next token last: the rest of the prompt, or the token drawn last.
    unread: Vec<u32>,
    sampler: Sampler,
    generated: GeneratedSequence,
}

impl Generator {
    /// Makes a cache as long as the longest sequence may become. Nothing runs yet.
    ///
    /// # Errors
    ///
    /// If the configuration is out of range, a prompt is empty, the model does not know a token of a prompt or a stop token, or it
    /// cannot have a cache (see [`HybridTransformer::try_kv_cache`]).
    pub fn new(
        model: &HybridTransformer,
        prompts: &[impl AsRef<[u32]>],
        config: &GenerationConfig,
    ) -> Result<Self, GenerationError> {
        config.check()?;
        let vocab_size = model.vocab_size();
        for (prompt, tokens) in prompts.iter().enumerate() {
            check_prompt(prompt, tokens.as_ref(), vocab_size)?;
        }
        if let Some(token) = unknown(&config.stop_tokens, vocab_size) {
            return Err(GenerationError::StopToken { token, vocab_size });
        }
        // A model that trains would drop out, and keep what gradients need.
        let model = model.valid();
        let longest = prompts.iter().map(|tokens| tokens.as_ref().len()).max();
        // The last token is drawn and not read.
        let max_tokens = longest
            .unwrap_or(1)
            .saturating_add(config.max_new_tokens.saturating_sub(1));
        let cache_config = KvCacheConfig::new(max_tokens).with_evict(config.evict);
        let mut cache = model.try_kv_cache(&cache_config)?;
        let mut sequences = Vec::with_capacity(prompts.len());
        for (prompt, tokens) in prompts.iter().enumerate() {
            sequences.push(Sequence {
                id: match config.max_new_tokens {
                    0 => None,
                    _ => Some(cache.try_add()?),
                },
                unread: tokens.as_ref().iter().rev().copied().collect(),
                sampler: Sampler::new(config, prompt as u64)?,
                generated: GeneratedSequence {
                    tokens: Vec::new(),
                    finish: FinishReason::Length,
                },
            });
        }
        Ok(Self {
            model,
            config: config.clone(),
            cache,
            sequences,
            largest: CacheUse::default(),
            failed: None,
        })
    }

    /// Whether all sequences have ended.
    pub fn is_done(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.id.is_none())
    }

    /// One step of all sequences that have not ended. Returns the tokens drawn, in the order of the prompts: none where prompts
    /// are still being read.
    ///
    /// # Errors
    ///
    /// If the device fails, or the model gives logits that no token can be drawn from. No sequence then has the step's token, and
    /// every later step gives the same error.
    pub fn step(&mut self) -> Result<Vec<GeneratedToken>, GenerationError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let tokens = self.try_step();
        self.failed = tokens.as_ref().err().cloned();
        tokens
    }

    fn try_step(&mut self) -> Result<Vec<GeneratedToken>, GenerationError> {
        let batch = self.next_batch();
        if batch.appends.is_empty() {
            return Ok(Vec::new());
        }
        self.cache.try_begin(&batch.appends)?;
        let rows = batch.tokens.len();
        let tokens = TensorData::new(batch.tokens, [1, rows]);
        let tokens = Tensor::<2, Int>::from_data(tokens, (self.cache.device(), DType::I32));
        let hidden = self.model.hidden_states_cached(tokens, &mut self.cache);
        self.cache.try_commit()?;
        self.measure();
        self.draw(hidden, &batch.drawn)
    }

    /// Ends a sequence; its tokens stay.
    ///
    /// # Panics
    ///
    /// If there is no such prompt.
    pub fn stop(&mut self, prompt: usize) {
        self.end(prompt, FinishReason::Stopped);
    }

    /// What the sequences have so far. Those that have not ended are [stopped](FinishReason::Stopped).
    pub fn finish(mut self) -> Generation {
        for prompt in 0..self.sequences.len() {
            self.stop(prompt);
        }
        let sequences = self.sequences.into_iter();
        Generation {
            sequences: sequences.map(|sequence| sequence.generated).collect(),
            cache: self.largest,
        }
    }

    /// The cache. Sequences that have ended are not in it.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// What the sequences read next.
    fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut left = self.config.prefill_chunk;
        for (prompt, sequence) in self.sequences.iter_mut().enumerate() {
            let Some(id) = sequence.id else { continue };
            let unread = &mut sequence.unread;
            let count = if sequence.generated.tokens.is_empty() {
                unread.len().min(left)
            } else {
                unread.len()
            };
            if count == 0 {
                continue;
            }
            if sequence.generated.tokens.is_empty() {
                left -= count;
            }
            let read = unread.split_off(unread.len() - count);
            batch
                .tokens
                .extend(read.iter().rev().map(|token| *token as i32));
            batch.appends.push(Append {
                sequence: id,
                tokens: count,
            });
            if unread.is_empty() {
                batch.drawn.push((prompt, batch.tokens.len() - 1));
            }
        }
        batch
    }

    /// Draws a token of each sequence that has all its tokens behind it.
    fn draw(
        &mut self,
        hidden: Tensor<3>,
        drawn: &[(usize, usize)],
    ) -> Result<Vec<GeneratedToken>, GenerationError> {
        if drawn.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<usize> = drawn.iter().map(|(_, row)| *row).collect();
        let logits = read(self.model.logits_of(hidden, &rows))?;
        // All are drawn before any sequence changes: a token that one has was returned.
        let logits = logits.chunks(self.model.vocab_size());
        let draws = drawn.iter().zip(logits).map(|((prompt, _), logits)| {
            let token = self.sequences[*prompt].sampler.draw(logits)?;
            Ok((*prompt, token))
        });
        let draws: Vec<(usize, u32)> = draws.collect::<Result<_, GenerationError>>()?;
        let mut tokens = Vec::with_capacity(draws.len());
        for (prompt, token) in draws {
            let sequence = &mut self.sequences[prompt];
            if self.config.stop_tokens.contains(&token) {
                self.end(prompt, FinishReason::StopToken(token));
                continue;
            }
            sequence.unread.push(token);
            let generated = &mut sequence.generated.tokens;
            generated.push(token);
            tokens.push(GeneratedToken {
                prompt,
                index: generated.len() - 1,
                token,
            });
            if generated.len() == self.config.max_new_tokens {
                self.end(prompt, FinishReason::Length);
            }
        }
        Ok(tokens)
    }

    /// Frees what a sequence holds. One that has ended keeps its reason.
    fn end(&mut self, prompt: usize, finish: FinishReason) {
        let sequence = &mut self.sequences[prompt];
        if let Some(id) = sequence.id.take() {
            self.cache.remove(id);
            sequence.generated.finish = finish;
        }
    }

    /// Keeps what the cache takes, and what one of everything would, each where it is more than before: a cache that frees what it
    /// does not need is at its largest long before the other one is.
    fn measure(&mut self) {
        let ids = self.sequences.iter().filter_map(|sequence| sequence.id);
        let full = ids
            .filter_map(|id| self.cache.tokens(id).ok())
            .map(|tokens| self.cache.full_bytes(tokens));
        let largest = self.largest;
        self.largest = CacheUse {
            bytes: largest.bytes.max(self.cache.memory_bytes()),
            full_bytes: largest.full_bytes.max(full.sum()),
        };
    }
}

fn check_prompt(prompt: usize, tokens: &[u32], vocab_size: usize) -> Result<(), GenerationError> {
    if tokens.is_empty() {
        return Err(GenerationError::EmptyPrompt { prompt });
    }
    match unknown(tokens, vocab_size) {
        Some(token) => Err(GenerationError::Token {
            prompt,
            token,
            vocab_size,
        }),
        None => Ok(()),
    }
}

/// The first token that a model does not know.
fn unknown(tokens: &[u32], vocab_size: usize) -> Option<u32> {
    let mut tokens = tokens.iter().copied();
    tokens.find(|token| *token as usize >= vocab_size)
}

/// What a step reads.
#[derive(Debug, Default)]
struct Batch {
    appends: Vec<Append>,
    /// The tokens of all appends.
    tokens: Vec<i32>,
    /// Prompts that get a token, and the rows of their last tokens.
    drawn: Vec<(usize, usize)>,
}

/// The only wait for the device.
fn read(logits: Tensor<2>) -> Result<Vec<f32>, GenerationError> {
    let device = |error: &dyn std::fmt::Display| GenerationError::Device {
        reason: error.to_string(),
    };
    // Converted on the host, where it costs no kernel. Bytes are read when they are looked at, and may fail only then.
    let data = logits.try_into_data_as::<f32>();
    let data = data.map_err(|error| device(&error))?;
    data.try_to_vec().map_err(|error| device(&error))
}
