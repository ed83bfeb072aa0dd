//! Configuration of [`HybridTransformer`].

use burn::config::Config;
use burn::nn::{DropoutConfig, EmbeddingConfig, Initializer};
use burn::tensor::Device;

use super::{HybridTransformer, TransformerBlock};
use crate::module::{
    MlpConfig, MlpKind, ModuleConfigError, NormKind, RopeConfig, S2AttentionConfig, linear,
};
use crate::{LayerSchedule, PatternConfig};

/// Configuration of [`HybridTransformer`].
///
/// The defaults are those of a small Llama: RMS norm, SwiGLU, rotary positions, no biases, tied embeddings.
///
#[cfg_attr(feature = "flex", doc = "```")]
#[cfg_attr(not(feature = "flex"), doc = "```no_run")]
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_s2_attention::{DenseLayers, LayerSchedule, PatternConfig};
/// use burn_s2_attention::model::HybridTransformerConfig;
///
/// let device = Device::default();
/// let pattern = PatternConfig::local_stride(2, 4, 16, 4);
/// // 4 layers of width 64 with 4 heads over 256 tokens; the first layer is dense.
/// let model = HybridTransformerConfig::new(256, 64, 4, 4, LayerSchedule::new(pattern).with_dense_layers(DenseLayers::First(1)))
///     .init(&device);
/// println!("{model}");
///
/// let tokens = Tensor::<2, Int>::zeros([1, 100], &device);
/// assert_eq!(model.forward(tokens).dims(), [1, 100, 256]);
/// ```
#[derive(Config, Debug)]
pub struct HybridTransformerConfig {
    /// Distinct tokens.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Layers.
    pub num_layers: usize,
    /// Query heads of every layer.
    pub num_heads: usize,
    /// The pattern of the sparse layers and which layers are dense.
    pub attention: LayerSchedule,
    /// Key/value heads, a divisor of `num_heads`. The default is the pattern's.
    pub num_kv_heads: Option<usize>,
    /// Elements per head. The default is `d_model / num_heads`.
    pub head_dim: Option<usize>,
    /// Hidden width of the feed-forward networks. The default is [`MlpKind::default_d_ff`].
    pub d_ff: Option<usize>,
    /// Factor of the scores before the softmax. The default is `1 / sqrt(head_dim)`.
    pub attention_scale: Option<f64>,
    /// Rotary position embedding; `None` for no positions but the pattern's.
    #[config(default = "Some(RopeConfig::new())")]
    pub rope: Option<RopeConfig>,
    /// Kind of all norms.
    #[config(default = "NormKind::RmsNorm")]
    pub norm: NormKind,
    /// Epsilon of all norms.
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// Kind of the feed-forward networks.
    #[config(default = "MlpKind::SwiGlu")]
    pub mlp: MlpKind,
    /// Whether linear layers and layer norms have biases. The head never has one.
    #[config(default = false)]
    pub bias: bool,
    /// Whether one matrix projects to queries, keys and values together, or three matrices do.
    #[config(default = true)]
    pub fused_qkv: bool,
    /// Whether queries and keys are normalised per head.
    #[config(default = false)]
    pub qk_norm: bool,
    /// Whether the head is the embedding, transposed, instead of a matrix of its own.
    #[config(default = true)]
    pub tied_embeddings: bool,
    /// Dropout of the embedding and of both branches of every layer while training.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Factor of the embeddings (muP).
    #[config(default = 1.0)]
    pub embedding_multiplier: f64,
    /// Factor of the logits (muP); a checkpoint that states a width multiplier to divide by means its reciprocal.
    #[config(default = 1.0)]
    pub logit_multiplier: f64,
    /// Standard deviation of the initial weights. The last projection of each branch has `init_std / sqrt(2 * num_layers)`, so
    /// that the residual stream does not grow with the depth ([GPT-2](https://openai.com/index/better-language-models/)).
    #[config(default = 0.02)]
    pub init_std: f64,
}

impl HybridTransformerConfig {
    /// Creates the model.
    ///
    /// # Errors
    ///
    /// If a size is zero, a probability or factor is out of range, the schedule or a pattern is refused, or the attention is (see
    /// [`S2AttentionConfig::try_init`]).
    pub fn try_init(&self, device: &Device) -> Result<HybridTransformer, ModuleConfigError> {
        self.check()?;
        let weights = Initializer::Normal {
            mean: 0.0,
            std: self.init_std,
        };
        Ok(HybridTransformer {
            embedding: EmbeddingConfig::new(self.vocab_size, self.d_model)
                .with_initializer(weights)
                .init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            layers: self.layers(device)?,
            norm: self
                .norm
                .init(self.d_model, self.norm_epsilon, self.bias, device),
            head: (!self.tied_embeddings)
                .then(|| linear(self.d_model, self.vocab_size, false, self.init_std, device)),
            embedding_multiplier: self.embedding_multiplier,
            logit_multiplier: self.logit_multiplier,
        })
    }

    /// Same as [`try_init`](Self::try_init).
    ///
    /// # Panics
    ///
    /// With the text of the error that [`try_init`](Self::try_init) returns.
    pub fn init(&self, device: &Device) -> HybridTransformer {
        self.try_init(device)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn layers(&self, device: &Device) -> Result<Vec<TransformerBlock>, ModuleConfigError> {
        let patterns = self.attention.patterns(self.num_layers)?;
        let mut layers: Vec<TransformerBlock> = Vec::with_capacity(self.num_layers);
        for pattern in patterns {
            let mut layer = self.layer(pattern.config().clone(), device)?;
            if let Some(first) = layers.first() {
                layer.attention.share_rope(&first.attention);
            }
            layers.push(layer);
        }
        Ok(layers)
    }

    fn layer(
        &self,
        pattern: PatternConfig,
        device: &Device,
    ) -> Result<TransformerBlock, ModuleConfigError> {
        let norm = || {
            self.norm
                .init(self.d_model, self.norm_epsilon, self.bias, device)
        };
        let branch_end_std = self.init_std / (2.0 * self.num_layers as f64).sqrt();
        let attention = S2AttentionConfig::new(self.d_model, self.num_heads, pattern)
            .with_num_kv_heads(self.num_kv_heads)
            .with_head_dim(self.head_dim)
            .with_scale(self.attention_scale)
            .with_rope(self.rope.clone())
            .with_fused_qkv(self.fused_qkv)
            .with_bias(self.bias)
            .with_qk_norm(self.qk_norm)
            .with_norm_epsilon(self.norm_epsilon)
            .with_init_std(self.init_std)
            .with_output_init_std(Some(branch_end_std));
        let mlp = MlpConfig::new(self.d_model)
            .with_d_ff(self.d_ff)
            .with_kind(self.mlp)
            .with_bias(self.bias)
            .with_init_std(self.init_std)
            .with_down_init_std(Some(branch_end_std));
        Ok(TransformerBlock {
            attention_norm: norm(),
            attention: attention.try_init(device)?,
            mlp_norm: norm(),
            mlp: mlp.try_init(device)?,
            dropout: DropoutConfig::new(self.dropout).init(),
        })
    }

    fn check(&self) -> Result<(), ModuleConfigError> {
        ModuleConfigError::check_count("vocab_size", self.vocab_size)?;
        ModuleConfigError::check_count("d_model", self.d_model)?;
        ModuleConfigError::check_count("num_layers", self.num_layers)?;
        ModuleConfigError::check_positive("norm_epsilon", self.norm_epsilon)?;
        ModuleConfigError::check_positive("embedding_multiplier", self.embedding_multiplier)?;
        ModuleConfigError::check_positive("logit_multiplier", self.logit_multiplier)?;
        ModuleConfigError::check_positive("init_std", self.init_std)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ModuleConfigError::Dropout {
                value: self.dropout,
            });
        }
        Ok(())
    }
}
