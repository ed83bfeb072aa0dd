//! What a cache is made of.

use burn::config::Config;

use crate::Pattern;

/// How large a cache may become.
#[derive(Config, Debug, PartialEq, Eq)]
pub struct KvCacheConfig {
    /// The longest sequence, in tokens. It takes no memory but that of the tables, a few words for each block of a longest
    /// sequence.
    pub max_tokens: usize,
    /// Whether blocks that no later token attends are freed. Off, everything is kept; the results are the same.
    #[config(default = true)]
    pub evict: bool,
    /// Allocates at once what this many sequences of `max_tokens` can need, and refuses more: buffers that never move, as a
    /// captured step needs them. Models with rotary positions then keep rotations of all `max_tokens` positions. By default pages
    /// are allocated as they are needed, for any number of sequences.
    pub reserve: Option<usize>,
}

/// What the cache of a layer follows from.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheLayer {
    /// Which key blocks every query block attends. Causal.
    pub pattern: Pattern,
    /// Elements of a query or key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Factor of the scores before the softmax; `None` stands for `1/sqrt(head_dim)`.
    pub scale: Option<f64>,
}
