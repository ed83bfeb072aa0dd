//! The feed-forward half of a transformer block.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Linear;
use burn::tensor::activation::{gelu, sigmoid, silu};
use burn::tensor::{Device, Tensor};

use super::ModuleConfigError;
use super::init::linear;
use super::layers;

/// What stands between the up and the down projection.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum MlpKind {
    /// `silu(gate) * up` ([Shazeer](https://arxiv.org/abs/2002.05202)), as in Llama.
    SwiGlu,
    /// `gelu(up)`, exact, without a gate.
    Gelu,
    /// Phi-3-small's "gegelu": `g * sigmoid(1.702 g) * (u + 1)` with `g = min(gate, limit)` and `u` = `up` limited to
    /// `-limit..=limit`. The checkpoint stores gate and up columns in turn; here they are two matrices.
    Gegelu {
        /// The limit.
        limit: f64,
    },
}

impl MlpKind {
    /// Whether there is a gate projection beside the up projection.
    pub fn is_gated(&self) -> bool {
        !matches!(self, Self::Gelu)
    }

    /// The usual hidden width: `4 * d_model`, or `8 / 3 * d_model` rounded up to a multiple of 64 with a gate, which has about as
    /// many parameters.
    pub fn default_d_ff(&self, d_model: usize) -> usize {
        if self.is_gated() {
            (8 * d_model).div_ceil(3).next_multiple_of(64)
        } else {
            4 * d_model
        }
    }
}

/// Configuration of [`Mlp`].
#[derive(Config, Debug)]
pub struct MlpConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Hidden width. The default is [`MlpKind::default_d_ff`].
    pub d_ff: Option<usize>,
    /// The activation and whether there is a gate.
    #[config(default = "MlpKind::SwiGlu")]
    pub kind: MlpKind,
    /// Whether the projections have biases.
    #[config(default = false)]
    pub bias: bool,
    /// Standard deviation of the initial weights.
    #[config(default = 0.02)]
    pub init_std: f64,
    /// Standard deviation of the initial down projection. The default is `init_std`; deep transformers shrink it with the depth.
    pub down_init_std: Option<f64>,
}

impl MlpConfig {
    /// Creates the module.
    ///
    /// # Errors
    ///
    /// If a width is zero, or the limit or a deviation is not positive.
    pub fn try_init(&self, device: &Device) -> Result<Mlp, ModuleConfigError> {
        ModuleConfigError::check_count("d_model", self.d_model)?;
        let d_ff = self
            .d_ff
            .unwrap_or_else(|| self.kind.default_d_ff(self.d_model));
        ModuleConfigError::check_count("d_ff", d_ff)?;
        let down_std = self.down_init_std.unwrap_or(self.init_std);
        ModuleConfigError::check_positive("init_std", self.init_std)?;
        ModuleConfigError::check_positive("down_init_std", down_std)?;
        if let MlpKind::Gegelu { limit } = self.kind {
            ModuleConfigError::check_positive("mlp.limit", limit)?;
        }

        let into_hidden = || linear(self.d_model, d_ff, self.bias, self.init_std, device);
        Ok(Mlp {
            gate: self.kind.is_gated().then(into_hidden),
            up: into_hidden(),
            down: linear(d_ff, self.d_model, self.bias, down_std, device),
            kind: self.kind,
        })
    }

    /// Same as [`try_init`](Self::try_init).
    ///
    /// # Panics
    ///
    /// With the text of the error that [`try_init`](Self::try_init) returns.
    pub fn init(&self, device: &Device) -> Mlp {
        self.try_init(device)
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Feed-forward network, created by [`MlpConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Mlp {
    /// Gate projection, `[d_model, d_ff]`.
    pub gate: Option<Linear>,
    /// Up projection, `[d_model, d_ff]`.
    pub up: Linear,
    /// Down projection, `[d_ff, d_model]`.
    pub down: Linear,
    #[module(skip)]
    kind: MlpKind,
}

impl Mlp {
    /// Applies the network to every token.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    ///
    /// If the last axis of `x` is not `d_model`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let up = layers::linear(&self.up, x.clone());
        let gate = || {
            let gate = self.gate.as_ref();
            layers::linear(gate.expect("a gated mlp has a gate projection"), x)
        };
        let hidden = match self.kind {
            MlpKind::SwiGlu => silu(gate()) * up,
            MlpKind::Gelu => gelu(up),
            MlpKind::Gegelu { limit } => {
                let gate = gate().clamp_max(limit);
                gate.clone() * sigmoid(gate * 1.702) * (up.clamp(-limit, limit) + 1.0)
            }
        };
        layers::linear(&self.down, hidden)
    }

    /// The activation and whether there is a gate.
    pub fn kind(&self) -> MlpKind {
        self.kind
    }

    /// Hidden width.
    pub fn d_ff(&self) -> usize {
        self.up.weight.lazy_shape()[1]
    }
}

impl ModuleDisplay for Mlp {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add_debug_attribute("kind", &self.kind)
            .add("d_model", &self.down.weight.lazy_shape()[1])
            .add("d_ff", &self.d_ff())
            .add("bias", &self.up.bias.is_some())
            .optional()
    }
}
