//! What the cache of a generation takes at some length: one line of JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::{Backend, Dtype, Origin, Record};

/// The cache of one sequence between two tokens. All layers have the same local + stride pattern, one for each key/value head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheRow {
    /// Shared by all rows of one generation.
    pub run: String,
    /// What it ran on.
    pub backend: Backend,
    /// Type of keys and values.
    pub dtype: Dtype,
    /// Layers.
    pub layers: usize,
    /// Query heads of each layer.
    pub heads: usize,
    /// Key/value heads of each layer.
    pub kv_heads: usize,
    /// Elements of a key, and of a value.
    pub head_dim: usize,
    /// Tokens a block.
    pub block: usize,
    /// Local window in blocks, the diagonal included.
    pub local_blocks: usize,
    /// Vertical stride in blocks.
    pub vert_stride: usize,
    /// Tokens in the cache.
    pub tokens: usize,
    /// Bytes in use: pages and tables.
    pub memory_bytes: usize,
    /// Bytes of the tables among them.
    pub table_bytes: usize,
    /// Bytes by the pattern's rule of what later tokens attend.
    pub predicted_bytes: usize,
    /// Bytes of a cache that keeps everything.
    pub full_bytes: usize,
    /// Bytes that are allocated.
    pub reserved_bytes: usize,
    /// Seconds since the first token.
    pub seconds: f64,
    /// The machine.
    pub device: String,
    /// Its driver; `null` where there is none.
    pub driver: Option<String>,
    /// Start of the run, UTC.
    pub date: String,
    /// The commit; `-dirty` after it if the tree had changes.
    pub commit: String,
    /// Versions of what ran.
    pub versions: BTreeMap<String, String>,
}

impl CacheRow {
    /// The law of the paper's pattern for `tokens` tokens, in bytes: of `N` blocks a key/value head keeps the `L` local ones, and
    /// every `V`-th of the others. Tables are the row's.
    pub fn law_bytes(&self, tokens: f64) -> f64 {
        let element = match self.dtype {
            Dtype::F64 => 8.0,
            Dtype::F32 => 4.0,
            Dtype::F16 | Dtype::Bf16 => 2.0,
        };
        let (local, stride) = (self.local_blocks as f64, self.vert_stride as f64);
        let blocks = tokens / self.block as f64;
        let kept = local.min(blocks) + (blocks - local).max(0.0) / stride;
        let page = 2.0 * (self.block * self.head_dim) as f64 * element;
        self.table_bytes as f64 + kept * page * (self.layers * self.kv_heads) as f64
    }
}

impl Record for CacheRow {
    fn run(&self) -> &str {
        &self.run
    }
}

impl Origin for CacheRow {
    fn device(&self) -> &str {
        &self.device
    }

    fn commit(&self) -> &str {
        &self.commit
    }
}

impl fmt::Display for CacheRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: usize| bytes as f64 / 1024.0;
        write!(
            f,
            "{} tokens in {:.0} s: cache {:.0} KiB, {:.1} % of the {:.0} KiB of a full one",
            self.tokens,
            self.seconds,
            kib(self.memory_bytes),
            100.0 * self.memory_bytes as f64 / self.full_bytes as f64,
            kib(self.full_bytes)
        )
    }
}
