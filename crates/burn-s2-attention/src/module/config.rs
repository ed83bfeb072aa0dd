//! Configuration of [`S2Attention`].

use burn::config::Config;
use burn::nn::RmsNormConfig;
use burn::tensor::Device;

use super::attention::S2Attention;
use super::init::linear;
use super::projection::QkvProjection;
use super::{ModuleConfigError, RopeConfig};
use crate::{Pattern, PatternConfig};

/// Configuration of [`S2Attention`].
///
#[cfg_attr(feature = "flex", doc = "```")]
#[cfg_attr(not(feature = "flex"), doc = "```no_run")]
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_s2_attention::PatternConfig;
/// use burn_s2_attention::module::{RopeConfig, S2AttentionConfig};
///
/// let device = Device::default();
/// // 4 query heads on 2 key/value heads; 2 local blocks of 16 tokens and every 4th block.
/// let pattern = PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2);
/// let attention = S2AttentionConfig::new(64, 4, pattern)
///     .with_rope(Some(RopeConfig::new()))
///     .init(&device);
///
/// let x = Tensor::<3>::random([1, 100, 64], Distribution::Default, &device);
/// assert_eq!(attention.forward(x).dims(), [1, 100, 64]);
/// ```
#[derive(Config, Debug)]
pub struct S2AttentionConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Which key blocks every query block attends.
    pub pattern: PatternConfig,
    /// Key/value heads, a divisor of `num_heads`. The default is the pattern's.
    pub num_kv_heads: Option<usize>,
    /// Elements per head. The default is `d_model / num_heads`.
    pub head_dim: Option<usize>,
    /// Factor of the scores before the softmax. The default is `1 / sqrt(head_dim)`.
    pub scale: Option<f64>,
    /// Rotary position embedding; `None` for no positions but the pattern's.
    pub rope: Option<RopeConfig>,
    /// Whether one matrix projects to queries, keys and values together (faster), or three matrices do.
    #[config(default = true)]
    pub fused_qkv: bool,
    /// Whether the projections have biases.
    #[config(default = false)]
    pub bias: bool,
    /// Whether queries and keys are normalised per head (RMS norm with a weight per element) before they are rotated.
    #[config(default = false)]
    pub qk_norm: bool,
    /// Epsilon of the query and key norms.
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// Standard deviation of the initial weights.
    #[config(default = 0.02)]
    pub init_std: f64,
    /// Standard deviation of the initial output weights. The default is `init_std`; deep transformers shrink it with the depth.
    pub output_init_std: Option<f64>,
}

impl S2AttentionConfig {
    /// Creates the module.
    ///
    /// # Errors
    ///
    /// If a size is zero, the heads do not divide, the pattern is refused or has another number of heads, `head_dim` is odd with
    /// rope, or a scale, epsilon or deviation is not positive.
    pub fn try_init(&self, device: &Device) -> Result<S2Attention, ModuleConfigError> {
        let pattern = self.pattern.build()?;
        let num_kv_heads = self.num_kv_heads.unwrap_or(pattern.num_kv_heads());
        self.check_heads(&pattern, num_kv_heads)?;
        self.check_numbers()?;
        let head_dim = self.resolve_head_dim()?;
        let rope = self
            .rope
            .as_ref()
            .map(|rope| rope.try_init(head_dim))
            .transpose()?;

        let (q_width, kv_width) = (self.num_heads * head_dim, num_kv_heads * head_dim);
        let head_norm = || {
            RmsNormConfig::new(head_dim)
                .with_epsilon(self.norm_epsilon)
                .init(device)
        };
        let output_std = self.output_init_std.unwrap_or(self.init_std);
        Ok(S2Attention {
            qkv: QkvProjection::new(self, q_width, kv_width, device),
            q_norm: self.qk_norm.then(head_norm),
            k_norm: self.qk_norm.then(head_norm),
            output: linear(q_width, self.d_model, self.bias, output_std, device),
            num_heads: self.num_heads,
            num_kv_heads,
            head_dim,
            scale: self.scale,
            rope,
            pattern,
        })
    }

    /// Same as [`try_init`](Self::try_init).
    ///
    /// # Panics
    ///
    /// With the text of the error that [`try_init`](Self::try_init) returns.
    pub fn init(&self, device: &Device) -> S2Attention {
        self.try_init(device)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn check_heads(&self, pattern: &Pattern, num_kv_heads: usize) -> Result<(), ModuleConfigError> {
        ModuleConfigError::check_count("d_model", self.d_model)?;
        ModuleConfigError::check_count("num_heads", self.num_heads)?;
        ModuleConfigError::check_count("num_kv_heads", num_kv_heads)?;
        if !self.num_heads.is_multiple_of(num_kv_heads) {
            return Err(ModuleConfigError::KvHeads {
                num_heads: self.num_heads,
                num_kv_heads,
            });
        }
        let (heads, pattern_heads) = (
            (self.num_heads, num_kv_heads),
            (pattern.num_heads(), pattern.num_kv_heads()),
        );
        if heads != pattern_heads {
            return Err(ModuleConfigError::PatternHeads {
                heads,
                pattern_heads,
            });
        }
        Ok(())
    }

    fn resolve_head_dim(&self) -> Result<usize, ModuleConfigError> {
        match self.head_dim {
            Some(head_dim) => {
                ModuleConfigError::check_count("head_dim", head_dim).map(|()| head_dim)
            }
            None if !self.d_model.is_multiple_of(self.num_heads) => {
                Err(ModuleConfigError::ModelWidth {
                    d_model: self.d_model,
                    num_heads: self.num_heads,
                })
            }
            None => Ok(self.d_model / self.num_heads),
        }
    }

    fn check_numbers(&self) -> Result<(), ModuleConfigError> {
        let positive = [
            ("scale", self.scale),
            ("norm_epsilon", Some(self.norm_epsilon)),
            ("init_std", Some(self.init_std)),
            ("output_init_std", self.output_init_std),
        ];
        positive
            .into_iter()
            .filter_map(|(field, value)| value.map(|value| (field, value)))
            .try_for_each(|(field, value)| ModuleConfigError::check_positive(field, value))
    }
}
