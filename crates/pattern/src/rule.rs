//! The written rules: which key block `j` a query block `i` attends.

use serde::{Deserialize, Serialize};

use crate::block_mask::BlockMask;
use crate::config::MAX_BLOCKS;
use crate::error::PatternError;

/// A block rule. `i` is the absolute query block, `j` the absolute key block, `g` the pattern head;
/// `step` and `offset` are the head step and head offset of
/// [`PatternConfig`](crate::PatternConfig). All sizes are in blocks.
///
/// "Causal" rules attend a token pair only when the key position is at most the query position.
/// Local sizes count the diagonal block.
///
/// The formulas are those of S2-Attention (arXiv 2407.17678) and of its authors' package `dkernel`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Causal local window and vertical stride (S2-Attention, HHST, Phi-3-small):
    /// `j <= i && (i - j < L || (j + g*step + offset) mod V == 0)`. `V = 1` is dense.
    LocalStride {
        /// `L`, at least 1.
        local_blocks: usize,
        /// `V`, at least 1.
        vert_stride: usize,
    },
    /// Causal, a stride for each range of distances: `j <= i && (j == i || (j - g*step - offset)
    /// mod v(i - j) == 0)`, where `v(d)` is the stride of the first range whose exclusive end
    /// exceeds `d`; the last range is open. The default head step is 1.
    Ranges {
        /// Stride of each range, each at least 1.
        strides: Vec<usize>,
        /// Exclusive ends of all ranges but the last, growing.
        range_blocks: Vec<usize>,
    },
    /// Bidirectional, strides counted from the edges of the local window, the same for every head:
    /// `(max(0, i-j-Ll+1) + max(0, j-i-Lr+1)) mod V == 0`.
    BidirectionalRelative {
        /// `Ll`, at least 1.
        local_left: usize,
        /// `Lr`, at least 1.
        local_right: usize,
        /// `V`, at least 1.
        vert_stride: usize,
    },
    /// Bidirectional, strides at absolute columns that differ from head to head:
    /// `(i-j < Ll && j-i < Lr) || (j + g*step + offset) mod V == 0`.
    BidirectionalAbsolute {
        /// `Ll`, at least 1.
        local_left: usize,
        /// `Lr`, at least 1.
        local_right: usize,
        /// `V`, at least 1.
        vert_stride: usize,
    },
    /// A sliding window: `i - j < left && j - i < right`, or causal without `right`: `0 <= i - j <
    /// left`.
    SlidingWindow {
        /// Blocks to the left, at least 1.
        left: usize,
        /// Blocks to the right, at least 1; `None` is causal.
        right: Option<usize>,
    },
    /// A sliding window and the first blocks: `j < s || window`, with `j <= i` where causal (no
    /// `right`).
    SinkWindow {
        /// `s`, at least 1.
        sink_blocks: usize,
        /// Blocks to the left, at least 1.
        left: usize,
        /// Blocks to the right, at least 1; `None` is causal.
        right: Option<usize>,
    },
    /// Diagonal and vertical stride: `j == i || (j + g*step + offset) mod V == 0`, with `j <= i`
    /// where causal.
    Strided {
        /// `V`, at least 1.
        vert_stride: usize,
        /// Whether a token attends only itself and what comes before.
        causal: bool,
    },
    /// Every block, or every block with `j <= i` where causal.
    Dense {
        /// Whether a token attends only itself and what comes before.
        causal: bool,
    },
    /// One rule for each pattern head: head `g` follows the `g`-th.
    PerHead(Vec<Rule>),
    /// Any boolean mask over absolute blocks.
    Custom(BlockMask),
    /// What either rule attends. Both are causal or both are bidirectional.
    Union(Box<Rule>, Box<Rule>),
    /// What both rules attend; causal where either is.
    Intersection(Box<Rule>, Box<Rule>),
    /// The rule, made causal: `j <= i`, and key position at most query position.
    CausalClamp(Box<Rule>),
}

impl Rule {
    /// What this rule or `other` attends.
    pub fn union(self, other: Rule) -> Rule {
        Rule::Union(Box::new(self), Box::new(other))
    }

    /// What this rule and `other` both attend.
    pub fn intersection(self, other: Rule) -> Rule {
        Rule::Intersection(Box::new(self), Box::new(other))
    }

    /// This rule without what lies after the query.
    pub fn causal_clamp(self) -> Rule {
        Rule::CausalClamp(Box::new(self))
    }

    /// Whether pattern head `g` attends only keys at or before the query.
    ///
    /// # Errors
    /// A union of a causal and a bidirectional rule is neither.
    pub(crate) fn is_causal(&self, g: usize) -> Result<bool, PatternError> {
        Ok(match self {
            Rule::LocalStride { .. } | Rule::Ranges { .. } | Rule::CausalClamp(_) => true,
            Rule::BidirectionalRelative { .. } | Rule::BidirectionalAbsolute { .. } => false,
            Rule::SlidingWindow { right, .. } | Rule::SinkWindow { right, .. } => right.is_none(),
            Rule::Strided { causal, .. } | Rule::Dense { causal } => *causal,
            Rule::PerHead(rules) => rules[g].is_causal(g)?,
            Rule::Custom(mask) => mask.is_causal(),
            Rule::Union(a, b) => {
                let causal = a.is_causal(g)?;
                if causal != b.is_causal(g)? {
                    return Err(PatternError::MixedCausality);
                }
                causal
            }
            Rule::Intersection(a, b) => a.is_causal(g)? | b.is_causal(g)?,
        })
    }

    /// Checks every parameter, for `pattern_heads` heads.
    pub(crate) fn check(&self, pattern_heads: usize) -> Result<(), PatternError> {
        match self {
            Rule::LocalStride {
                local_blocks,
                vert_stride,
            } => {
                check_size("local_blocks", *local_blocks)?;
                check_size("vert_stride", *vert_stride)
            }
            Rule::Ranges {
                strides,
                range_blocks,
            } => check_ranges(strides, range_blocks),
            Rule::BidirectionalRelative {
                local_left,
                local_right,
                vert_stride,
            }
            | Rule::BidirectionalAbsolute {
                local_left,
                local_right,
                vert_stride,
            } => {
                check_size("local_left", *local_left)?;
                check_size("local_right", *local_right)?;
                check_size("vert_stride", *vert_stride)
            }
            Rule::SlidingWindow { left, right } => check_window(*left, *right),
            Rule::SinkWindow {
                sink_blocks,
                left,
                right,
            } => {
                check_size("sink_blocks", *sink_blocks)?;
                check_window(*left, *right)
            }
            Rule::Strided { vert_stride, .. } => check_size("vert_stride", *vert_stride),
            Rule::Dense { .. } => Ok(()),
            Rule::PerHead(rules) => {
                if rules.len() != pattern_heads {
                    return Err(PatternError::PerHeadCount {
                        given: rules.len(),
                        expected: pattern_heads,
                    });
                }
                rules.iter().try_for_each(|rule| rule.check(pattern_heads))
            }
            Rule::Custom(mask) => match mask.heads() {
                1 => Ok(()),
                heads if heads == pattern_heads => Ok(()),
                given => Err(PatternError::MaskHeads {
                    given,
                    expected: pattern_heads,
                }),
            },
            Rule::Union(a, b) | Rule::Intersection(a, b) => {
                a.check(pattern_heads)?;
                b.check(pattern_heads)
            }
            Rule::CausalClamp(rule) => rule.check(pattern_heads),
        }
    }
}

/// A count of blocks or a stride: 1 to [`MAX_BLOCKS`].
pub(crate) fn check_size(name: &'static str, value: usize) -> Result<(), PatternError> {
    match value {
        0 => Err(PatternError::TooSmall {
            name,
            value,
            min: 1,
        }),
        1..=MAX_BLOCKS => Ok(()),
        _ => Err(PatternError::TooLarge {
            name,
            value: value as i128,
            max: MAX_BLOCKS,
        }),
    }
}

fn check_window(left: usize, right: Option<usize>) -> Result<(), PatternError> {
    check_size("left", left)?;
    right.map_or(Ok(()), |right| check_size("right", right))
}

fn check_ranges(strides: &[usize], range_blocks: &[usize]) -> Result<(), PatternError> {
    if strides.len() != range_blocks.len() + 1 {
        return Err(PatternError::RangeCount {
            strides: strides.len(),
            ends: range_blocks.len(),
        });
    }
    strides
        .iter()
        .try_for_each(|&stride| check_size("strides", stride))?;
    range_blocks
        .iter()
        .try_for_each(|&end| check_size("range_blocks", end))?;
    match range_blocks.windows(2).position(|ends| ends[1] <= ends[0]) {
        Some(at) => Err(PatternError::RangesNotGrowing {
            index: at + 1,
            previous: range_blocks[at],
            value: range_blocks[at + 1],
        }),
        None => Ok(()),
    }
}
