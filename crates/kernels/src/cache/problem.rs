//! One call on a cache: its sizes, pattern and scale, checked once.

use s2_attention_pattern::Pattern;
use serde::{Deserialize, Serialize};

use super::{CacheError, TableLayout};
use crate::ProblemError;

/// The sizes of a step's `q [rows, num_heads, head_dim]`, `k [rows, num_kv_heads, head_dim]` and
/// `v [rows, num_kv_heads, value_dim]`, and of the pool that they go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheShape {
    /// Sequences of the step.
    pub items: usize,
    /// Rows of `q`, `k` and `v`: new tokens of all items. There may be more than the items own.
    pub rows: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Elements of a query or key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Pages of the pool.
    pub pages: usize,
    /// Entries that a list of the table has room for.
    pub capacity: usize,
}

/// The sizes of the pages of keys or of values: `[pages, block_size, width]`, contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolShape {
    /// Pages.
    pub pages: usize,
    /// Tokens of a page.
    pub block_size: usize,
    /// Elements of a key or value.
    pub width: usize,
}

impl PoolShape {
    /// Elements of all pages.
    pub fn len(&self) -> usize {
        self.pages * self.page_len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of a page.
    pub fn page_len(&self) -> usize {
        self.block_size * self.width
    }
}

/// A checked call on a cache. It holds what a captured call keeps when it is replayed: lengths and pages are in the table.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheProblem {
    shape: CacheShape,
    scale: f64,
    // Last, since a table takes the longest to compare.
    pattern: Pattern,
}

impl CacheProblem {
    /// Checks a call. `scale` defaults to `1/sqrt(head_dim)`.
    ///
    /// # Errors
    /// [`CacheError::EmptyAxis`], [`CacheError::NotCausal`], [`CacheError::Rows`], [`CacheError::PageLimit`],
    /// [`CacheError::Words`], and of [`CacheError::Problem`] the head counts and the scale.
    pub fn new(
        shape: CacheShape,
        pattern: &Pattern,
        scale: Option<f64>,
    ) -> Result<Self, CacheError> {
        todo!()
    }

    /// The sizes of the tensors.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Which key blocks a query block attends.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The factor on the scores before the softmax.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The scale, checked for kernels that apply it in f32 and to base 2.
    ///
    /// # Errors
    /// [`ProblemError::Scale`] where its product with `log2(e)` is beyond f32.
    pub fn f32_scale(&self) -> Result<f32, ProblemError> {
        todo!()
    }

    /// Where the words of the table lie.
    pub fn layout(&self) -> TableLayout {
        TableLayout {
            items: self.shape.items,
            kv_heads: self.shape.num_kv_heads,
            capacity: self.shape.capacity,
        }
    }

    /// The pages of keys, `[pages, block, head_dim]`.
    pub fn key_pool(&self) -> PoolShape {
        self.pool(self.shape.head_dim)
    }

    /// The pages of values, `[pages, block, value_dim]`.
    pub fn value_pool(&self) -> PoolShape {
        self.pool(self.shape.value_dim)
    }

    fn pool(&self, width: usize) -> PoolShape {
        PoolShape {
            pages: self.shape.pages,
            block_size: self.pattern.block_size(),
            width,
        }
    }
}
