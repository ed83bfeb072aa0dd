//! Writing with a model: bytes as they come, and how fast they came.

use std::{
    fmt,
    io::{self, Write},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use burn_s2_attention::model::{CacheUse, GenerationConfig};
use indicatif::HumanBytes;

use crate::{cli::SamplingArgs, model::LanguageModel};

/// What was written, and what it took.
#[derive(Clone, Debug)]
pub struct Written {
    /// The text, without the prompt.
    pub text: String,
    /// Bytes of the prompt.
    pub prompt_bytes: usize,
    /// Bytes written.
    pub bytes: usize,
    /// Time until the first byte: that of the prompt.
    pub prompt_time: Duration,
    /// Time of the other bytes.
    pub time: Duration,
    /// The cache, and one that keeps everything, each when it was largest.
    pub cache: CacheUse,
}

/// Continues `prompt` as `config` says, writing bytes to `out` as they come.
///
/// Keys and values are kept in a cache: each byte takes one pass over itself.
///
/// # Errors
///
/// For an empty prompt, and where the device or `out` fails.
pub fn generate(
    model: &LanguageModel,
    prompt: &str,
    config: &GenerationConfig,
    out: &mut impl Write,
) -> Result<Written> {
    ensure!(
        !prompt.is_empty(),
        "--prompt is empty: the model needs a byte to continue"
    );
    let tokens: Vec<u32> = prompt.bytes().map(u32::from).collect();
    let mut text = prompt.as_bytes().to_vec();
    let mut shown = text.len();
    let mut written = Ok(());
    let start = Instant::now();
    let mut first = None;
    let generation = model
        .transformer()
        .try_generate(&[tokens], config, |token| {
            first.get_or_insert_with(|| start.elapsed());
            // The model knows 256 tokens.
            text.push(token.token as u8);
            match show(&text[shown..], out) {
                Ok(bytes) => {
                    shown += bytes;
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    written = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
    // What did not become a character is shown as what it is in the text.
    let rest = String::from_utf8_lossy(&text[shown..]);
    let written = written.and_then(|()| out.write_all(rest.as_bytes()));
    written
        .and_then(|()| out.flush())
        .context("cannot write the text")?;
    let (all, prompt_time) = (start.elapsed(), first.unwrap_or_default());
    Ok(Written {
        text: String::from_utf8_lossy(&text[prompt.len()..]).into_owned(),
        prompt_bytes: prompt.len(),
        bytes: text.len() - prompt.len(),
        prompt_time,
        time: all.saturating_sub(prompt_time),
        cache: generation.cache,
    })
}

/// The generation that options ask for, of at most `count` bytes.
///
/// # Errors
///
/// For options that mean nothing.
pub fn config(sampling: &SamplingArgs, count: usize) -> Result<GenerationConfig> {
    let config = GenerationConfig::new(count)
        .with_temperature(sampling.temperature)
        .with_top_k(Some(sampling.top_k))
        .with_top_p(sampling.top_p)
        .with_seed(sampling.seed)
        .with_prefill_chunk(sampling.prefill_chunk);
    config.check()?;
    Ok(config)
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.prompt_time.as_secs_f64() * 1e3;
        write!(
            f,
            "{} bytes of prompt in {milliseconds:.0} ms",
            self.prompt_bytes
        )?;
        // The first byte comes with the prompt.
        if self.bytes > 1 {
            let rate = (self.bytes - 1) as f64 / self.time.as_secs_f64();
            write!(f, ", {} written: {rate:.0} tokens/s", self.bytes)?;
        }
        if self.cache.full_bytes > 0 {
            let CacheUse { bytes, full_bytes } = self.cache;
            let percent = 100.0 * bytes as f64 / full_bytes as f64;
            let [bytes, full] = [bytes, full_bytes].map(|bytes| HumanBytes(bytes as u64));
            write!(
                f,
                "; cache {bytes}, {percent:.0} % of the {full} of a full one"
            )?;
        }
        Ok(())
    }
}

/// Writes the characters that are whole, and how many bytes they had.
fn show(bytes: &[u8], out: &mut impl Write) -> io::Result<usize> {
    let mut shown = 0;
    for chunk in bytes.utf8_chunks() {
        out.write_all(chunk.valid().as_bytes())?;
        shown += chunk.valid().len();
        let end = shown + chunk.invalid().len();
        // What is invalid at the very end may still become a character.
        if shown < end && end < bytes.len() {
            write!(out, "{}", char::REPLACEMENT_CHARACTER)?;
            shown = end;
        }
    }
    out.flush()?;
    Ok(shown)
}
