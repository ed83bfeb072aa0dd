//! Published patterns by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::PatternConfig;
use crate::error::PatternError;
use crate::layers::{DenseLayers, LayerSchedule};

/// A published pattern.
///
/// ```
/// use s2_attention_pattern::Preset;
///
/// let config = "phi3_small".parse::<Preset>()?.config(32, 8);
/// assert_eq!((config.block_size, config.head_offset), (64, 1));
/// # Ok::<(), s2_attention_pattern::PatternError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Phi-3-small: block 64, local 16, stride 8, head offset 1, a pattern per query head; every
    /// second layer is dense. vLLM and TensorRT-LLM compute the same. The published model has 32
    /// query and 8 KV heads.
    Phi3Small,
    /// The defaults of `dkernel`'s mask builder: block 64, local 4, stride 4, head offset 0, a
    /// pattern per query head.
    Dkernel,
    /// The paper's Head-Heterogeneous Strided Transformer: a pattern per query head and as many
    /// stride columns as pattern heads (V = `num_heads`), so that the heads share the context out
    /// among them. Block 64, local 16, head offset 0 and two dense first layers are this crate's
    /// defaults for it.
    /// Where the KV head is made the pattern head, set the stride to `num_kv_heads` as well.
    Hhst,
}

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 3] = [Preset::Phi3Small, Preset::Dkernel, Preset::Hhst];

    /// The name, as accepted by [`FromStr`].
    pub fn name(self) -> &'static str {
        match self {
            Preset::Phi3Small => "phi3_small",
            Preset::Dkernel => "dkernel",
            Preset::Hhst => "hhst",
        }
    }

    /// The pattern of a sparse layer.
    pub fn config(self, num_heads: usize, num_kv_heads: usize) -> PatternConfig {
        let config = match self {
            Preset::Phi3Small => {
                PatternConfig::local_stride(16, 8, 64, num_heads).with_head_offset(1)
            }
            Preset::Dkernel => PatternConfig::local_stride(4, 4, 64, num_heads),
            Preset::Hhst => PatternConfig::local_stride(16, num_heads, 64, num_heads),
        };
        config.with_num_kv_heads(num_kv_heads)
    }

    /// The pattern of a sparse layer, and which layers are dense.
    pub fn layers(self, num_heads: usize, num_kv_heads: usize) -> LayerSchedule {
        let dense = match self {
            Preset::Phi3Small => DenseLayers::Every(2),
            Preset::Dkernel => DenseLayers::None,
            Preset::Hhst => DenseLayers::First(2),
        };
        LayerSchedule::new(self.config(num_heads, num_kv_heads)).with_dense_layers(dense)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = PatternError;

    fn from_str(name: &str) -> Result<Self, PatternError> {
        Preset::ALL
            .into_iter()
            .find(|preset| preset.name() == name)
            .ok_or_else(|| PatternError::UnknownPreset {
                name: name.to_owned(),
                accepted: Preset::ALL.map(Preset::name).join(", "),
            })
    }
}
