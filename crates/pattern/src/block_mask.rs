//! Custom patterns: any boolean mask over absolute blocks.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{MAX_HEADS, MAX_TABLE_BLOCKS};
use crate::error::PatternError;
use crate::rule::check_size;

/// A boolean mask `[heads or 1, q_blocks, kv_blocks]` over absolute blocks, and whether it is
/// causal.
///
/// A causal mask attends nothing after the query: its blocks with `j > i` are cleared, and in the
/// diagonal block a key is attended when its position is at most the query's. Cheap to clone. As
/// data it is the list of kept key blocks of each row: `{"causal": true, "kv_blocks": 3, "rows":
/// [[[0], [0, 1], [1, 2]]]}`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Rows", into = "Rows")]
pub struct BlockMask {
    heads: usize,
    q_blocks: usize,
    kv_blocks: usize,
    causal: bool,
    /// One bit for each block, head-major, then row-major.
    bits: Arc<[u64]>,
}

impl BlockMask {
    /// From `kept`, row-major values of shape `[heads, q_blocks, kv_blocks]`.
    ///
    /// # Errors
    /// A shape with a zero in it, with more than 65,535 blocks on a side or 2^32 in all, or another number of values than the
    /// shape holds.
    pub fn new(
        [heads, q_blocks, kv_blocks]: [usize; 3],
        kept: &[bool],
        causal: bool,
    ) -> Result<Self, PatternError> {
        check_shape(heads, q_blocks, kv_blocks)?;
        if heads * q_blocks * kv_blocks != kept.len() {
            return Err(PatternError::MaskSize {
                heads,
                q_blocks,
                kv_blocks,
                given: kept.len(),
            });
        }
        Self::from_fn([heads, q_blocks, kv_blocks], causal, |h, i, j| {
            kept[(h * q_blocks + i) * kv_blocks + j]
        })
    }

    /// From a predicate `kept(head, i, j)` over the shape `[heads, q_blocks, kv_blocks]`.
    ///
    /// # Errors
    /// A shape with a zero in it, with more than 65,535 blocks on a side or 2^32 in all.
    pub fn from_fn(
        [heads, q_blocks, kv_blocks]: [usize; 3],
        causal: bool,
        kept: impl Fn(usize, usize, usize) -> bool,
    ) -> Result<Self, PatternError> {
        check_shape(heads, q_blocks, kv_blocks)?;
        let mut bits = vec![0u64; (heads * q_blocks * kv_blocks).div_ceil(64)];
        for h in 0..heads {
            for i in 0..q_blocks {
                for j in 0..if causal {
                    kv_blocks.min(i + 1)
                } else {
                    kv_blocks
                } {
                    if kept(h, i, j) {
                        let at = (h * q_blocks + i) * kv_blocks + j;
                        bits[at / 64] |= 1 << (at % 64);
                    }
                }
            }
        }
        Ok(Self {
            heads,
            q_blocks,
            kv_blocks,
            causal,
            bits: bits.into(),
        })
    }

    /// Heads of the mask: 1 where all heads share it.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Query blocks (rows).
    pub fn q_blocks(&self) -> usize {
        self.q_blocks
    }

    /// Key blocks (columns).
    pub fn kv_blocks(&self) -> usize {
        self.kv_blocks
    }

    /// Whether nothing after the query is attended.
    pub fn is_causal(&self) -> bool {
        self.causal
    }

    /// Whether pattern head `g` keeps key block `j` in row `i`. Nothing is kept outside the mask. A
    /// mask of one head serves every `g`.
    pub fn keeps(&self, g: usize, i: usize, j: usize) -> bool {
        if i >= self.q_blocks || j >= self.kv_blocks {
            return false;
        }
        let head = if self.heads == 1 { 0 } else { g };
        let at = (head * self.q_blocks + i) * self.kv_blocks + j;
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }
}

impl fmt::Debug for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept: u32 = self.bits.iter().map(|word| word.count_ones()).sum();
        f.debug_struct("BlockMask")
            .field("shape", &[self.heads, self.q_blocks, self.kv_blocks])
            .field("causal", &self.causal)
            .field("kept", &kept)
            .finish()
    }
}

/// At most `u32::MAX` blocks a head, so that index lists hold 32-bit numbers.
fn check_shape(heads: usize, q_blocks: usize, kv_blocks: usize) -> Result<(), PatternError> {
    check_size("heads", heads)?;
    check_size("q_blocks", q_blocks)?;
    check_size("kv_blocks", kv_blocks)?;
    for (name, value, max) in [
        ("heads", heads, MAX_HEADS),
        ("q_blocks", q_blocks, MAX_TABLE_BLOCKS),
        ("kv_blocks", kv_blocks, MAX_TABLE_BLOCKS),
        // Half a gigabyte of bits.
        (
            "heads * q_blocks * kv_blocks",
            heads * q_blocks * kv_blocks,
            u32::MAX as usize,
        ),
    ] {
        if value > max {
            return Err(PatternError::TooLarge {
                name,
                value: value as i128,
                max,
            });
        }
    }
    Ok(())
}

/// A mask as data: `rows[head][i]` lists the kept key blocks, ascending.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    causal: bool,
    kv_blocks: usize,
    rows: Vec<Vec<Vec<usize>>>,
}

impl From<BlockMask> for Rows {
    fn from(mask: BlockMask) -> Self {
        let row = |h, i| {
            (0..mask.kv_blocks)
                .filter(|&j| mask.keeps(h, i, j))
                .collect()
        };
        let rows = (0..mask.heads)
            .map(|h| (0..mask.q_blocks).map(|i| row(h, i)).collect())
            .collect();
        Self {
            causal: mask.causal,
            kv_blocks: mask.kv_blocks,
            rows,
        }
    }
}

impl TryFrom<Rows> for BlockMask {
    type Error = PatternError;

    fn try_from(
        Rows {
            causal,
            kv_blocks,
            rows,
        }: Rows,
    ) -> Result<Self, PatternError> {
        let q_blocks = rows.first().map_or(0, Vec::len);
        for (head, of_head) in rows.iter().enumerate() {
            if of_head.len() != q_blocks {
                let (rows, expected) = (of_head.len(), q_blocks);
                return Err(PatternError::MaskRagged {
                    head,
                    rows,
                    expected,
                });
            }
            for (row, kept) in of_head.iter().enumerate() {
                if let Some(&j) = kept.iter().find(|&&j| j >= kv_blocks) {
                    let problem = format!("keeps key block {j}; key blocks are 0..{kv_blocks}");
                    return Err(PatternError::MaskRow { head, row, problem });
                }
                if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
                    let problem = format!(
                        "lists {} before {}; key blocks must ascend",
                        pair[0], pair[1]
                    );
                    return Err(PatternError::MaskRow { head, row, problem });
                }
            }
        }
        Self::from_fn([rows.len(), q_blocks, kv_blocks], causal, |h, i, j| {
            rows[h][i].binary_search(&j).is_ok()
        })
    }
}
