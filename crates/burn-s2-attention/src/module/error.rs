//! Errors of the module configurations.

use crate::PatternError;

/// A configuration that no module can be made of. Each text says what was given and what would be accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleConfigError {
    /// A count that must be at least one.
    #[error("{field} is 0; it must be at least 1")]
    Zero {
        /// Name of the field.
        field: &'static str,
    },
    /// A number that must be positive and finite.
    #[error("{field} is {value}; it must be a positive finite number")]
    NotPositive {
        /// Name of the field.
        field: &'static str,
        /// The value given.
        value: f64,
    },
    /// The model width cannot be divided among the heads.
    #[error(
        "d_model = {d_model} is not divisible by num_heads = {num_heads}; change one of them or set head_dim"
    )]
    ModelWidth {
        /// Model width.
        d_model: usize,
        /// Query heads.
        num_heads: usize,
    },
    /// The query heads cannot be divided among the key/value heads.
    #[error(
        "num_heads = {num_heads} is not divisible by num_kv_heads = {num_kv_heads}; num_kv_heads must divide num_heads"
    )]
    KvHeads {
        /// Query heads.
        num_heads: usize,
        /// Key/value heads.
        num_kv_heads: usize,
    },
    /// Rotary pairs need an even head dimension.
    #[error("head_dim = {head_dim} cannot be rotated in pairs; use an even head_dim or no rope")]
    OddHeadDim {
        /// Elements per head.
        head_dim: usize,
    },
    /// The pattern was made for another number of heads.
    #[error(
        "the pattern has {} query and {} key/value heads, the attention has num_heads = {} and num_kv_heads = {}; \
         they must be equal",
        pattern_heads.0, pattern_heads.1, heads.0, heads.1
    )]
    PatternHeads {
        /// Query and key/value heads of the attention.
        heads: (usize, usize),
        /// Query and key/value heads of the pattern.
        pattern_heads: (usize, usize),
    },
    /// The Llama-3 frequency band is empty.
    #[error("rope.scaling: high_freq_factor = {high} must be greater than low_freq_factor = {low}")]
    FrequencyBand {
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
    },
    /// The list of frequency factors has the wrong length.
    #[error("rope.scaling.factors has {len} entries; it must have head_dim / 2 = {expected}")]
    FrequencyFactors {
        /// Entries given.
        len: usize,
        /// Entries needed.
        expected: usize,
    },
    /// A dropout probability outside of `0..1`.
    #[error("dropout is {value}; it must be at least 0 and less than 1")]
    Dropout {
        /// The value given.
        value: f64,
    },
    /// The pattern itself is refused.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl ModuleConfigError {
    pub(crate) fn check_count(field: &'static str, value: usize) -> Result<(), Self> {
        if value == 0 {
            Err(Self::Zero { field })
        } else {
            Ok(())
        }
    }

    pub(crate) fn check_positive(field: &'static str, value: f64) -> Result<(), Self> {
        if value > 0.0 && value.is_finite() {
            Ok(())
        } else {
            Err(Self::NotPositive { field, value })
        }
    }
}
