//! Writing with a model: one byte at a time, drawn from what it predicts.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::{cli::SamplingArgs, model::LanguageModel};

/// Draws bytes from logits.
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler; the same seed draws the same bytes.
    ///
    /// # Errors
    ///
    /// For a temperature that is not a number from 0 on, and for no candidates.
    pub fn new(args: &SamplingArgs) -> Result<Self> {
        let SamplingArgs {
            temperature,
            top_k,
            seed,
        } = *args;
        ensure!(
            temperature >= 0.0 && temperature.is_finite(),
            "--temperature {temperature} is not a number from 0 on"
        );
        ensure!(
            top_k > 0,
            "--top-k 0 leaves nothing to draw from: at least 1"
        );
        Ok(Self {
            temperature,
            top_k,
            rng: ChaCha8Rng::seed_from_u64(seed),
        })
    }

    /// Draws a byte from its 256 logits.
    pub fn draw(&mut self, logits: &[f32]) -> u8 {
        let mut order: Vec<u8> = (0..=255).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        if self.temperature == 0.0 {
            return order[0];
        }
        order.truncate(self.top_k);
        let best = f64::from(logits[order[0] as usize]);
        let weight =
            |byte: u8| ((f64::from(logits[byte as usize]) - best) / self.temperature).exp();
        let total: f64 = order.iter().map(|&byte| weight(byte)).sum();
        let mut left = self.rng.random::<f64>() * total;
        for &byte in &order {
            left -= weight(byte);
            if left < 0.0 {
                return byte;
            }
        }
        order[0]
    }
}

/// Continues `prompt` by `count` bytes, writing them to `out` as they come, and returns them.
///
/// Each byte takes a whole forward pass over the last `context` bytes.
///
/// # Errors
///
/// For an empty prompt, and where the device or `out` fails.
pub fn generate(
    model: &LanguageModel,
    context: usize,
    prompt: &str,
    count: usize,
    sampler: &mut Sampler,
    device: &Device,
    out: &mut impl Write,
) -> Result<String> {
    ensure!(
        !prompt.is_empty(),
        "--prompt is empty: the model needs a byte to continue"
    );
    let mut text = prompt.as_bytes().to_vec();
    let mut shown = text.len();
    for _ in 0..count {
        let window = &text[text.len().saturating_sub(context)..];
        let bytes: Vec<i32> = window.iter().map(|&byte| byte.into()).collect();
        let length = bytes.len();
        let input = Tensor::<2, Int>::from_data(TensorData::new(bytes, [1, length]), device);
        let logits = model.forward(input).narrow(1, length - 1, 1);
        let logits: Vec<f32> = logits.try_into_vec_as()?;
        text.push(sampler.draw(&logits));
        shown += show(&text[shown..], out).context("cannot write the text")?;
    }
    Ok(String::from_utf8_lossy(&text[prompt.len()..]).into_owned())
}

/// Writes the characters that are whole, and how many bytes they had.
fn show(bytes: &[u8], out: &mut impl Write) -> std::io::Result<usize> {
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
