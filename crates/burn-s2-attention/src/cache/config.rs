//! What a cache is made of.

use burn::config::Config;
use burn::tensor::DType;
use s2_attention_kernels::cache::CacheShape;

use super::group::TableSizes;
use crate::Pattern;

/// How large a cache may become.
#[derive(Config, Debug, PartialEq, Eq)]
pub struct KvCacheConfig {
    /// The longest sequence, in tokens. More than is used takes no pages, but larger tables: for each pattern, sequence and
    /// key/value head 8 bytes for each block that the fullest head can hold, which of a dense one are all. They are on the
    /// device, twice where prompts and single tokens come in one step;
    /// [`KvCache::predicted_bytes`](super::KvCache::predicted_bytes) of 0 tokens is their size. The host writes and sends them
    /// whole in each step whose sequences or blocks are not those of the step before, and goes through the blocks of a longest
    /// sequence when the cache is made, once for each key/value head that keeps blocks of its own.
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

impl CacheLayer {
    /// Bytes of one page, of keys and of values.
    pub(super) fn page_bytes(&self, dtype: DType) -> usize {
        self.pattern.block_size() * (self.head_dim + self.value_dim) * dtype.size()
    }

    /// The sizes of a call of so many rows on a pool of so many pages.
    pub(super) fn shape(&self, rows: usize, pages: usize, table: TableSizes) -> CacheShape {
        CacheShape {
            items: table.layout.items,
            rows,
            num_heads: self.pattern.num_heads(),
            num_kv_heads: self.pattern.num_kv_heads(),
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            pages,
            capacity: table.layout.capacity,
            decode_tokens: table.decode_tokens,
            max_tokens: table.max_tokens,
        }
    }

    /// The first thing in which this layer and another one differ: its name, and what it is here and there.
    pub(super) fn difference(&self, other: &Self) -> Option<(&'static str, [String; 2])> {
        let scale = |layer: &Self| {
            let default = || 1.0 / (layer.head_dim as f64).sqrt();
            layer.scale.unwrap_or_else(default)
        };
        let both = |of: &dyn Fn(&Self) -> String| [of(self), of(other)];
        if self.pattern != other.pattern {
            Some(("pattern", both(&|layer| layer.pattern.to_string())))
        } else if self.head_dim != other.head_dim {
            Some(("head_dim", both(&|layer| layer.head_dim.to_string())))
        } else if self.value_dim != other.value_dim {
            Some(("value_dim", both(&|layer| layer.value_dim.to_string())))
        } else if scale(self) != scale(other) {
            Some(("scale", both(&|layer| scale(layer).to_string())))
        } else {
            None
        }
    }
}
