//! Normalisation of the residual stream.

use burn::config::Config;
use burn::nn::{LayerNormConfig, RmsNormConfig, norm::Normalization, norm::NormalizationConfig};
use burn::tensor::Device;

/// Which of Burn's normalisations a model uses.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum NormKind {
    /// Root mean square with a weight ([Zhang & Sennrich](https://arxiv.org/abs/1910.07467)), as in Llama.
    RmsNorm,
    /// Mean and variance with a weight and, where the model has biases, a bias ([Ba et al.](https://arxiv.org/abs/1607.06450)), as in GPT-2 and Phi-3-small.
    LayerNorm,
}

impl NormKind {
    /// Creates the layer; `bias` only matters to [`LayerNorm`](Self::LayerNorm).
    ///
    /// # Panics
    ///
    /// If `epsilon` is not positive.
    pub fn init(&self, d_model: usize, epsilon: f64, bias: bool, device: &Device) -> Normalization {
        let config: NormalizationConfig = match self {
            Self::RmsNorm => RmsNormConfig::new(d_model).with_epsilon(epsilon).into(),
            Self::LayerNorm => LayerNormConfig::new(d_model)
                .with_epsilon(epsilon)
                .with_bias(bias)
                .into(),
        };
        config.init(device)
    }
}
