//! Patterns of a model's layers: some dense, the others sparse.

use serde::{Deserialize, Serialize};

use crate::config::PatternConfig;
use crate::error::PatternError;
use crate::pattern::Pattern;
use crate::rule::Rule;

/// Which layers attend everything. Layers count from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenseLayers {
    /// No layer.
    #[default]
    None,
    /// The first so many.
    First(usize),
    /// Every `n`-th: layer `l` is dense when `(l + 1) mod n == 0`, as in Phi-3-small.
    Every(usize),
    /// These.
    Listed(Vec<usize>),
}

impl DenseLayers {
    /// Whether layer `layer` is dense.
    pub fn contains(&self, layer: usize) -> bool {
        match self {
            DenseLayers::None => false,
            DenseLayers::First(n) => layer < *n,
            DenseLayers::Every(n) => (layer + 1).is_multiple_of(*n),
            DenseLayers::Listed(layers) => layers.contains(&layer),
        }
    }
}

/// The pattern of each layer of a model.
///
/// ```
/// use s2_attention_pattern::{DenseLayers, LayerSchedule, PatternConfig};
///
/// let sparse = PatternConfig::local_stride(4, 4, 64, 8);
/// let layers = LayerSchedule::new(sparse).with_dense_layers(DenseLayers::First(2)).patterns(6)?;
/// assert!(layers[1].is_dense() && !layers[2].is_dense());
/// # Ok::<(), s2_attention_pattern::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerSchedule {
    /// The pattern of the sparse layers. A dense layer keeps its block size and heads, and its
    /// causality.
    pub sparse: PatternConfig,
    /// Which layers attend everything.
    #[serde(default)]
    pub dense_layers: DenseLayers,
    /// The vertical stride of each layer, in place of the one in `sparse`; unused in dense layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vert_strides: Option<Vec<usize>>,
}

impl LayerSchedule {
    /// The same pattern in all layers.
    pub fn new(sparse: PatternConfig) -> Self {
        Self {
            sparse,
            dense_layers: DenseLayers::None,
            vert_strides: None,
        }
    }

    /// Makes some layers dense.
    pub fn with_dense_layers(mut self, dense_layers: DenseLayers) -> Self {
        self.dense_layers = dense_layers;
        self
    }

    /// Gives each layer its own vertical stride, in blocks.
    pub fn with_vert_strides(mut self, vert_strides: Vec<usize>) -> Self {
        self.vert_strides = Some(vert_strides);
        self
    }

    /// The pattern of each of `num_layers` layers. Equal layers share one.
    ///
    /// # Errors
    /// A meaningless pattern, a dense layer that does not exist, or strides for another number of
    /// layers or for a rule without a single vertical stride.
    pub fn patterns(&self, num_layers: usize) -> Result<Vec<Pattern>, PatternError> {
        self.check(num_layers)?;
        self.sparse.check()?;
        let mut built: Vec<Pattern> = Vec::new();
        for layer in 0..num_layers {
            let config = self.layer(layer)?;
            let pattern = match built.iter().find(|pattern| *pattern.config() == config) {
                Some(pattern) => pattern.clone(),
                None => config.build()?,
            };
            built.push(pattern);
        }
        Ok(built)
    }

    fn check(&self, layers: usize) -> Result<(), PatternError> {
        match &self.dense_layers {
            DenseLayers::Every(0) => {
                return Err(PatternError::TooSmall {
                    name: "dense_layers.every",
                    value: 0,
                    min: 1,
                });
            }
            DenseLayers::Listed(listed) => {
                if let Some(&layer) = listed.iter().find(|&&layer| layer >= layers) {
                    return Err(PatternError::LayerOutside { layer, layers });
                }
            }
            // More dense first layers than layers make an all-dense model.
            DenseLayers::None | DenseLayers::First(_) | DenseLayers::Every(_) => {}
        }
        match &self.vert_strides {
            Some(strides) if strides.len() != layers => Err(PatternError::LayerStrideCount {
                given: strides.len(),
                layers,
            }),
            _ => Ok(()),
        }
    }

    /// The configuration of one layer.
    fn layer(&self, layer: usize) -> Result<PatternConfig, PatternError> {
        if self.dense_layers.contains(layer) {
            return self.dense();
        }
        let mut config = self.sparse.clone();
        if let Some(strides) = &self.vert_strides {
            let given = config.rule.to_string();
            match &mut config.rule {
                Rule::LocalStride { vert_stride, .. }
                | Rule::BidirectionalRelative { vert_stride, .. }
                | Rule::BidirectionalAbsolute { vert_stride, .. }
                | Rule::Strided { vert_stride, .. } => *vert_stride = strides[layer],
                _ => return Err(PatternError::LayerStrideRule { rule: given }),
            }
        }
        Ok(config)
    }

    /// The configuration of a dense layer.
    fn dense(&self) -> Result<PatternConfig, PatternError> {
        let sparse = &self.sparse;
        let causal = (0..sparse.pattern_heads()).map(|g| sparse.rule.is_causal(g));
        let mut rules: Vec<Rule> = causal
            .map(|causal| Ok(Rule::Dense { causal: causal? }))
            .collect::<Result<_, PatternError>>()?;
        let alike = rules.iter().all(|rule| *rule == rules[0]);
        let rule = if alike {
            rules.swap_remove(0)
        } else {
            Rule::PerHead(rules)
        };
        Ok(PatternConfig {
            num_kv_heads: sparse.num_kv_heads,
            per_kv_head: sparse.per_kv_head,
            active_heads: sparse.active_heads.clone(),
            ..PatternConfig::new(rule, sparse.block_size, sparse.num_heads)
        })
    }
}
