//! The description of a pattern: plain data, with a builder.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::PatternError;
use crate::pattern::Pattern;
use crate::rule::{Rule, check_size};

/// Largest block index, block count and stride: what a signed 32-bit index on a device holds.
pub const MAX_BLOCKS: usize = i32::MAX as usize;

/// Largest number of query heads.
pub const MAX_HEADS: usize = 1 << 16;

/// Largest `table_blocks`: the index lists of a head hold 32-bit numbers.
pub(crate) const MAX_TABLE_BLOCKS: usize = u16::MAX as usize;

/// A pattern as plain data: a [`Rule`] and the heads that it is spread over.
///
/// ```
/// use s2_attention_pattern::PatternConfig;
///
/// let pattern = PatternConfig::local_stride(16, 8, 64, 32)
///     .with_num_kv_heads(8)
///     .with_head_offset(1)
///     .build()?;
/// assert_eq!(pattern.group_size(), 4);
/// # Ok::<(), s2_attention_pattern::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternConfig {
    /// Tokens per block.
    pub block_size: usize,
    /// All query heads, `Hq`.
    pub num_heads: usize,
    /// All KV heads, `Hkv`, a divisor of `num_heads`.
    pub num_kv_heads: usize,
    /// The block rule.
    pub rule: Rule,
    /// Blocks by which the stride columns move from one pattern head to the next. The default is
    /// `max(1, vert_stride / num_heads)`, for [`Rule::Ranges`] 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_step: Option<i64>,
    /// Blocks by which the stride columns of all heads are moved: 0 in `dkernel`, 1 in Phi-3-small,
    /// vLLM and TensorRT-LLM.
    #[serde(default, skip_serializing_if = "is_default")]
    pub head_offset: i64,
    /// Whether all heads have the same stride columns (head step 0).
    #[serde(default, skip_serializing_if = "is_default")]
    pub homogeneous: bool,
    /// The last so many pattern heads attend everything.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dense_heads: usize,
    /// Whether the query heads of one KV head share one pattern: the pattern head is the KV head.
    #[serde(default, skip_serializing_if = "is_default")]
    pub per_kv_head: bool,
    /// The slice of query heads that is computed, with their global indices (tensor parallelism);
    /// `None` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_heads: Option<Range<usize>>,
    /// Query and key blocks over which a composition without a closed form is tabulated. Unused
    /// where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_blocks: Option<usize>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl PatternConfig {
    /// A rule over `num_heads` query heads, each with its own KV head; `block_size` in tokens.
    pub fn new(rule: Rule, block_size: usize, num_heads: usize) -> Self {
        Self {
            block_size,
            num_heads,
            num_kv_heads: num_heads,
            rule,
            head_step: None,
            head_offset: 0,
            homogeneous: false,
            dense_heads: 0,
            per_kv_head: false,
            active_heads: None,
            table_blocks: None,
        }
    }

    /// [`Rule::LocalStride`].
    pub fn local_stride(
        local_blocks: usize,
        vert_stride: usize,
        block_size: usize,
        num_heads: usize,
    ) -> Self {
        Self::new(
            Rule::LocalStride {
                local_blocks,
                vert_stride,
            },
            block_size,
            num_heads,
        )
    }

    /// Causal [`Rule::SlidingWindow`] of `window_blocks` blocks, the diagonal included.
    pub fn sliding_window(window_blocks: usize, block_size: usize, num_heads: usize) -> Self {
        Self::new(
            Rule::SlidingWindow {
                left: window_blocks,
                right: None,
            },
            block_size,
            num_heads,
        )
    }

    /// Causal [`Rule::Dense`].
    pub fn dense(block_size: usize, num_heads: usize) -> Self {
        Self::new(Rule::Dense { causal: true }, block_size, num_heads)
    }

    /// Sets the KV heads (grouped-query attention).
    pub fn with_num_kv_heads(mut self, num_kv_heads: usize) -> Self {
        self.num_kv_heads = num_kv_heads;
        self
    }

    /// Sets the head step, in blocks.
    pub fn with_head_step(mut self, head_step: i64) -> Self {
        self.head_step = Some(head_step);
        self
    }

    /// Sets the head offset, in blocks.
    pub fn with_head_offset(mut self, head_offset: i64) -> Self {
        self.head_offset = head_offset;
        self
    }

    /// Gives all heads the same stride columns.
    pub fn homogeneous(mut self) -> Self {
        self.homogeneous = true;
        self
    }

    /// Makes the last `dense_heads` pattern heads dense.
    pub fn with_dense_heads(mut self, dense_heads: usize) -> Self {
        self.dense_heads = dense_heads;
        self
    }

    /// Makes the KV head the pattern head.
    pub fn per_kv_head(mut self) -> Self {
        self.per_kv_head = true;
        self
    }

    /// Keeps a slice of the query heads, with their global indices.
    pub fn with_active_heads(mut self, active_heads: Range<usize>) -> Self {
        self.active_heads = Some(active_heads);
        self
    }

    /// Sets the blocks over which a composition without a closed form is tabulated.
    pub fn with_table_blocks(mut self, table_blocks: usize) -> Self {
        self.table_blocks = Some(table_blocks);
        self
    }

    /// Validates and compiles the pattern.
    ///
    /// # Errors
    /// Any parameter that means nothing, and a composition that has neither closed form nor
    /// `table_blocks`.
    pub fn build(&self) -> Result<Pattern, PatternError> {
        Pattern::new(self.clone())
    }

    /// Heads with a pattern of their own, `Hp`.
    pub fn pattern_heads(&self) -> usize {
        if self.per_kv_head {
            self.num_kv_heads
        } else {
            self.num_heads
        }
    }

    pub(crate) fn check(&self) -> Result<(), PatternError> {
        check_size("block_size", self.block_size)?;
        for (name, heads) in [
            ("num_heads", self.num_heads),
            ("num_kv_heads", self.num_kv_heads),
        ] {
            match heads {
                0 => {
                    return Err(PatternError::TooSmall {
                        name,
                        value: 0,
                        min: 1,
                    });
                }
                1..=MAX_HEADS => {}
                _ => {
                    return Err(PatternError::TooLarge {
                        name,
                        value: heads as i128,
                        max: MAX_HEADS,
                    });
                }
            }
        }
        let (num_heads, num_kv_heads) = (self.num_heads, self.num_kv_heads);
        if num_heads % num_kv_heads != 0 {
            return Err(PatternError::HeadsNotDivisible {
                num_heads,
                num_kv_heads,
            });
        }
        check_shift("head_offset", self.head_offset)?;
        if let Some(head_step) = self.head_step {
            check_shift("head_step", head_step)?;
            if self.homogeneous && head_step != 0 {
                return Err(PatternError::HomogeneousHeadStep { head_step });
            }
        }
        let (dense_heads, pattern_heads) = (self.dense_heads, self.pattern_heads());
        if dense_heads > pattern_heads {
            return Err(PatternError::TooManyDenseHeads {
                dense_heads,
                pattern_heads,
            });
        }
        if let Some(range) = self.active_heads.clone() {
            let group_size = num_heads / num_kv_heads;
            if range.start >= range.end || range.end > num_heads {
                return Err(PatternError::ActiveHeadsOutside { range, num_heads });
            }
            if range.start % group_size != 0 || range.end % group_size != 0 {
                return Err(PatternError::ActiveHeadsSplitGroup { range, group_size });
            }
        }
        if let Some(table_blocks) = self.table_blocks {
            check_size("table_blocks", table_blocks)?;
            if table_blocks > MAX_TABLE_BLOCKS {
                return Err(PatternError::TooLarge {
                    name: "table_blocks",
                    value: table_blocks as i128,
                    max: MAX_TABLE_BLOCKS,
                });
            }
        }
        self.rule.check(pattern_heads)
    }
}

fn check_shift(name: &'static str, value: i64) -> Result<(), PatternError> {
    if value.unsigned_abs() > MAX_BLOCKS as u64 {
        return Err(PatternError::TooLarge {
            name,
            value: value.into(),
            max: MAX_BLOCKS,
        });
    }
    Ok(())
}
