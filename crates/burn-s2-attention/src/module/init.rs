//! Initial values of linear layers.

use burn::nn::{Initializer, Linear};
use burn::tensor::Device;

/// A linear layer with normal weights and, unlike Burn's `LinearConfig`, a bias of zeros: the way GPT-2 and Llama start.
pub(crate) fn linear(
    d_input: usize,
    d_output: usize,
    bias: bool,
    std: f64,
    device: &Device,
) -> Linear {
    Linear {
        weight: Initializer::Normal { mean: 0.0, std }.init([d_input, d_output], device),
        bias: bias.then(|| Initializer::Zeros.init([d_output], device)),
    }
}
