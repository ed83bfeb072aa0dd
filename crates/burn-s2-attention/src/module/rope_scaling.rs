//! Frequency changes with which rotary positions reach longer contexts.

use std::f64::consts::TAU;

use burn::config::Config;

use super::ModuleConfigError;

/// How the frequencies are changed to reach longer contexts than the model was first trained on.
#[derive(Config, Debug, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// Position interpolation ([Chen et al.](https://arxiv.org/abs/2306.15595)): all positions are divided by `factor`.
    Linear {
        /// Context growth; a checkpoint that states a position *scale* means its reciprocal.
        factor: f64,
    },
    /// Llama 3: long wavelengths are divided by `factor`, short ones are kept, with a smooth passage between.
    Llama3 {
        /// Context growth applied to the long wavelengths (8 in Llama 3.1).
        factor: f64,
        /// Wavelengths above `original_max_positions / low_freq_factor` are scaled in full (1 in Llama 3.1).
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions / high_freq_factor` are kept (4 in Llama 3.1).
        high_freq_factor: f64,
        /// Context length of the first training, in tokens (8192 in Llama 3.1).
        original_max_positions: usize,
    },
    /// One divisor per frequency, as LongRoPE ("su") checkpoints list them; YaRN can be written this way too.
    PerFrequency {
        /// `head_dim / 2` divisors, from the highest frequency to the lowest.
        factors: Vec<f64>,
        /// Multiplies cosine and sine (the checkpoint's attention factor or "mscale"); 1 for none.
        amplitude: f64,
    },
}

impl RopeScaling {
    /// Refuses what means nothing for heads of `num_frequencies` pairs.
    pub(super) fn check(&self, num_frequencies: usize) -> Result<(), ModuleConfigError> {
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => {
                ModuleConfigError::check_positive("rope.scaling.factor", *factor)
            }
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_positions,
            } => {
                ModuleConfigError::check_positive("rope.scaling.factor", *factor)?;
                ModuleConfigError::check_positive(
                    "rope.scaling.low_freq_factor",
                    *low_freq_factor,
                )?;
                ModuleConfigError::check_positive(
                    "rope.scaling.high_freq_factor",
                    *high_freq_factor,
                )?;
                ModuleConfigError::check_count(
                    "rope.scaling.original_max_positions",
                    *original_max_positions,
                )?;
                if high_freq_factor <= low_freq_factor {
                    return Err(ModuleConfigError::FrequencyBand {
                        low: *low_freq_factor,
                        high: *high_freq_factor,
                    });
                }
                Ok(())
            }
            Self::PerFrequency { factors, amplitude } => {
                if factors.len() != num_frequencies {
                    return Err(ModuleConfigError::FrequencyFactors {
                        len: factors.len(),
                        expected: num_frequencies,
                    });
                }
                ModuleConfigError::check_positive("rope.scaling.amplitude", *amplitude)?;
                factors.iter().try_for_each(|&factor| {
                    ModuleConfigError::check_positive("rope.scaling.factors", factor)
                })
            }
        }
    }

    /// Radians per position of pair `k`, whose unscaled value is `frequency`.
    pub(super) fn apply(&self, k: usize, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_positions,
            } => {
                let turns = *original_max_positions as f64 * frequency / TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor))
                    .clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
            Self::PerFrequency { factors, .. } => frequency / factors[k],
        }
    }

    /// Factor of cosine and sine.
    pub(super) fn amplitude(&self) -> f64 {
        match self {
            Self::PerFrequency { amplitude, .. } => *amplitude,
            _ => 1.0,
        }
    }
}
