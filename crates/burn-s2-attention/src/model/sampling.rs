//! Drawing tokens from logits, on the host.

use std::cmp::Ordering;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{GenerationConfig, GenerationError};

/// Draws the tokens of one sequence.
///
/// The logits are divided by the temperature, all but the `top_k` likeliest tokens are dropped, then all but the fewest whose
/// probabilities among those sum to `top_p`. Of tokens with equal logits the lower one counts as likelier. Without a
/// temperature the likeliest token is taken and nothing is drawn. A token whose probability is 0 never comes.
///
/// ```
/// use burn_s2_attention::model::{GenerationConfig, Sampler};
///
/// let config = GenerationConfig::new(1).with_temperature(1.0).with_top_k(Some(2));
/// let mut sampler = Sampler::new(&config, 0)?;
/// let logits = [1.0, 3.0, 2.0];
/// let tokens: Vec<u32> = sampler.candidates(&logits)?.iter().map(|(token, _)| *token).collect();
/// assert_eq!(tokens, [1, 2]);
/// assert!(tokens.contains(&sampler.draw(&logits)?));
/// # Ok::<(), burn_s2_attention::model::GenerationError>(())
/// ```
#[derive(Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler whose draws follow from the seed of `config` and the number of the sequence, and from nothing else.
    ///
    /// # Errors
    ///
    /// For a temperature, `top_k` or `top_p` out of range, with the values seen and accepted.
    pub fn new(config: &GenerationConfig, sequence: u64) -> Result<Self, GenerationError> {
        config.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(sequence);
        Ok(Self {
            temperature: config.temperature,
            top_k: config.top_k,
            // All tokens: nothing is lost to the rounding of their sum.
            top_p: config.top_p.filter(|top_p| *top_p < 1.0),
            rng,
        })
    }

    /// The tokens that can be drawn and their probabilities, which are above 0: the likeliest first with `top_k` or a `top_p` below 1,
    /// else in their order.
    ///
    /// # Errors
    ///
    /// [`GenerationError::Logits`] where a logit is NaN or infinity, or none is more than minus infinity.
    pub fn candidates(&self, logits: &[f32]) -> Result<Vec<(u32, f64)>, GenerationError> {
        let best = likeliest(logits)?;
        if self.temperature == 0.0 {
            return Ok(vec![(best, 1.0)]);
        }
        let logit = |token: u32| logits[token as usize];
        let likelier = |a: &u32, b: &u32| {
            let order = logit(*b).partial_cmp(&logit(*a));
            order.unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        let mut tokens: Vec<u32> = (0..logits.len() as u32)
            .filter(|token| logit(*token) > f32::NEG_INFINITY)
            .collect();
        if let Some(top_k) = self.top_k
            && top_k < tokens.len()
        {
            tokens.select_nth_unstable_by(top_k, likelier);
            tokens.truncate(top_k);
        }
        if self.top_k.is_some() || self.top_p.is_some() {
            tokens.sort_unstable_by(likelier);
        }
        let weight =
            |token| ((f64::from(logit(token)) - f64::from(logit(best))) / self.temperature).exp();
        let mut drawn: Vec<(u32, f64)> = tokens
            .into_iter()
            .map(|token| (token, weight(token)))
            .collect();
        if let Some(top_p) = self.top_p {
            let enough = top_p * total(&drawn);
            let mut sum = 0.0;
            let last = drawn.iter().position(|(_, weight)| {
                sum += weight;
                sum >= enough
            });
            drawn.truncate(last.map_or(drawn.len(), |last| last + 1));
        }
        let total = total(&drawn);
        for (_, weight) in &mut drawn {
            *weight /= total;
        }
        // Far below the likeliest there is nothing left of a probability.
        drawn.retain(|(_, probability)| *probability > 0.0);
        Ok(drawn)
    }

    /// Draws a token.
    ///
    /// # Errors
    ///
    /// As [`candidates`](Self::candidates).
    pub fn draw(&mut self, logits: &[f32]) -> Result<u32, GenerationError> {
        let candidates = self.candidates(logits)?;
        let Some((last, _)) = candidates.last().copied() else {
            return Err(GenerationError::Logits);
        };
        if candidates.len() == 1 {
            return Ok(last);
        }
        let mut left = self.rng.random::<f64>();
        let drawn = candidates.into_iter().find(|(_, probability)| {
            left -= probability;
            left < 0.0
        });
        // The probabilities may sum to a little less than 1.
        Ok(drawn.map_or(last, |(token, _)| token))
    }
}

/// The token with the highest logit, the first of several.
fn likeliest(logits: &[f32]) -> Result<u32, GenerationError> {
    let mut best: Option<usize> = None;
    for (token, logit) in logits.iter().enumerate() {
        if logit.is_nan() || *logit == f32::INFINITY {
            return Err(GenerationError::Logits);
        }
        if *logit > best.map_or(f32::NEG_INFINITY, |best| logits[best]) {
            best = Some(token);
        }
    }
    best.map(|best| best as u32).ok_or(GenerationError::Logits)
}

fn total(drawn: &[(u32, f64)]) -> f64 {
    drawn.iter().map(|(_, weight)| weight).sum()
}
