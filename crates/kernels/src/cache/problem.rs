//! One call on a cache: its sizes, pattern and scale, checked once.

use s2_attention_pattern::Pattern;
use serde::{Deserialize, Serialize};

use super::pages::MAX_PAGES;
use super::{CacheError, ENTRY_WORDS, ITEM_WORDS, TableLayout};
use crate::ProblemError;
use crate::problem::{MAX_POSITION, check_heads, check_scale, f32_scale};

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
    /// New tokens of the longest item that is decoded, at least 1; more than [`MAX_DECODE_TOKENS`](super::MAX_DECODE_TOKENS) count as that. Of them a device's
    /// cubes are made, whatever `rows` the other items have; a step with more is computed all the same, only slower.
    pub decode_tokens: usize,
    /// The longest sequence, in tokens.
    pub max_tokens: usize,
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
    /// [`CacheError::EmptyAxis`], [`CacheError::MaxTokens`], [`CacheError::NotCausal`], [`CacheError::Rows`],
    /// [`CacheError::PageLimit`], [`CacheError::Words`], and of [`CacheError::Problem`] the head counts and the scale.
    pub fn new(
        shape: CacheShape,
        pattern: &Pattern,
        scale: Option<f64>,
    ) -> Result<Self, CacheError> {
        let axes = [
            ("items", shape.items),
            ("rows", shape.rows),
            ("num_heads", shape.num_heads),
            ("num_kv_heads", shape.num_kv_heads),
            ("head_dim", shape.head_dim),
            ("value_dim", shape.value_dim),
            ("pages", shape.pages),
            ("capacity", shape.capacity),
            ("decode_tokens", shape.decode_tokens),
        ];
        if let Some((axis, _)) = axes.into_iter().find(|(_, size)| *size == 0) {
            return Err(CacheError::EmptyAxis { axis });
        }
        check_max_tokens(shape.max_tokens)?;
        check_causal(pattern)?;
        check_heads(shape.num_heads, shape.num_kv_heads, pattern)?;
        check_rows(shape.rows)?;
        if shape.pages > MAX_PAGES {
            return Err(CacheError::PageLimit {
                seen: shape.pages,
                accepted: MAX_PAGES,
            });
        }
        check_words(shape.items, shape.num_kv_heads, shape.capacity)?;
        Ok(Self {
            shape,
            scale: check_scale(scale, shape.head_dim)?,
            pattern: pattern.clone(),
        })
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
        f32_scale(self.scale)
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

/// A key after its query would have to be there before it is computed.
pub(super) fn check_causal(pattern: &Pattern) -> Result<(), CacheError> {
    let mut heads = 0..pattern.num_heads();
    match heads.find(|&head| !pattern.head(head).is_causal()) {
        Some(head) => Err(CacheError::NotCausal { head }),
        None => Ok(()),
    }
}

/// Positions are words of a table.
pub(super) fn check_max_tokens(max_tokens: usize) -> Result<(), CacheError> {
    if !(1..=MAX_POSITION).contains(&max_tokens) {
        return Err(CacheError::MaxTokens {
            seen: max_tokens,
            accepted: MAX_POSITION,
        });
    }
    Ok(())
}

/// Rows are counted in the 32-bit words of a table.
pub(super) fn check_rows(rows: usize) -> Result<(), CacheError> {
    if rows > MAX_POSITION {
        return Err(CacheError::Rows {
            seen: rows,
            accepted: MAX_POSITION,
        });
    }
    Ok(())
}

/// The places of a table's words are counted in 32 bits by the kernels that read it.
pub(super) fn check_words(
    items: usize,
    kv_heads: usize,
    capacity: usize,
) -> Result<(), CacheError> {
    let list = capacity.saturating_mul(ENTRY_WORDS).saturating_add(1);
    let item = kv_heads.saturating_mul(list).saturating_add(ITEM_WORDS);
    let seen = items.saturating_mul(item);
    let accepted = i32::MAX as usize;
    if seen > accepted {
        return Err(CacheError::Words { seen, accepted });
    }
    Ok(())
}
