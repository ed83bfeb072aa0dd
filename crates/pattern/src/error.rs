//! What can be wrong with a pattern, with the value seen and what would be accepted.

use std::ops::Range;

/// A pattern that means nothing, or that has no closed form and was given no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A size below its smallest meaningful value.
    #[error("`{name}` is {value}, but must be at least {min}")]
    TooSmall {
        /// Name of the parameter.
        name: &'static str,
        /// The value given.
        value: usize,
        /// The smallest value accepted.
        min: usize,
    },

    /// A number above what the indices can hold.
    #[error("`{name}` is {value}, but its magnitude must be at most {max}")]
    TooLarge {
        /// Name of the parameter.
        name: &'static str,
        /// The value given.
        value: i128,
        /// The largest magnitude accepted.
        max: usize,
    },

    /// The query heads don't form whole groups.
    #[error("`num_heads` is {num_heads}, which is no multiple of `num_kv_heads` = {num_kv_heads}")]
    HeadsNotDivisible {
        /// Query heads given.
        num_heads: usize,
        /// KV heads given.
        num_kv_heads: usize,
    },

    /// More dense heads than heads with a pattern.
    #[error(
        "`dense_heads` is {dense_heads}, but there are only {pattern_heads} pattern heads; give 0 to {pattern_heads}"
    )]
    TooManyDenseHeads {
        /// Dense heads given.
        dense_heads: usize,
        /// Heads with a pattern of their own.
        pattern_heads: usize,
    },

    /// An active head range that is empty or leaves the heads.
    #[error("`active_heads` is {}..{}, but must be a non-empty part of 0..{num_heads}", range.start, range.end)]
    ActiveHeadsOutside {
        /// The range given.
        range: Range<usize>,
        /// All query heads.
        num_heads: usize,
    },

    /// An active head range that cuts through the query heads of one KV head.
    #[error(
        "`active_heads` is {}..{}, which cuts a group of {group_size} query heads that share a KV head; \
         start and end must be multiples of {group_size}", range.start, range.end
    )]
    ActiveHeadsSplitGroup {
        /// The range given.
        range: Range<usize>,
        /// Query heads per KV head.
        group_size: usize,
    },

    /// A head step beside homogeneous heads.
    #[error("`head_step` is {head_step}, but homogeneous heads have step 0; drop one of the two")]
    HomogeneousHeadStep {
        /// The step given.
        head_step: i64,
    },

    /// Not one range end for each stride but the last.
    #[error(
        "{strides} strides need {} range ends (the last range is open), but `range_blocks` has {ends}",
        strides.saturating_sub(1)
    )]
    RangeCount {
        /// Strides given.
        strides: usize,
        /// Range ends given.
        ends: usize,
    },

    /// Range ends that do not grow.
    #[error(
        "`range_blocks[{index}]` is {value}, but must be greater than the end before it, {previous}"
    )]
    RangesNotGrowing {
        /// Position in `range_blocks`.
        index: usize,
        /// The end before it.
        previous: usize,
        /// The end at that position.
        value: usize,
    },

    /// A per-head list of the wrong length.
    #[error(
        "a per-head rule lists {given} rules, but there are {expected} pattern heads; list one for each"
    )]
    PerHeadCount {
        /// Rules listed.
        given: usize,
        /// Heads with a pattern of their own.
        expected: usize,
    },

    /// A block mask for another number of heads.
    #[error(
        "a block mask has {given} heads, but must have 1 or {expected} (one for each pattern head)"
    )]
    MaskHeads {
        /// Heads of the mask.
        given: usize,
        /// Heads with a pattern of their own.
        expected: usize,
    },

    /// Mask data that do not fill the shape.
    #[error(
        "a block mask of {heads} x {q_blocks} x {kv_blocks} blocks has another number of values than the {given} given"
    )]
    MaskSize {
        /// Heads of the mask.
        heads: usize,
        /// Query blocks.
        q_blocks: usize,
        /// Key blocks.
        kv_blocks: usize,
        /// Values given.
        given: usize,
    },

    /// Mask heads with different numbers of rows.
    #[error(
        "head {head} of a block mask has {rows} rows, but head 0 has {expected}; all must have as many"
    )]
    MaskRagged {
        /// Head of the mask.
        head: usize,
        /// Its rows.
        rows: usize,
        /// Rows of head 0.
        expected: usize,
    },

    /// A mask row that is unsorted or out of range.
    #[error("row {row} of head {head} of a block mask {problem}")]
    MaskRow {
        /// Head of the mask.
        head: usize,
        /// Query block.
        row: usize,
        /// What is wrong and what is accepted.
        problem: String,
    },

    /// A union whose parts disagree about causality.
    #[error(
        "a union joins a causal rule and a bidirectional one, so that its diagonal blocks would be masked in part; \
         wrap the bidirectional rule in a causal clamp, or use bidirectional rules on both sides"
    )]
    MixedCausality,

    /// A composition that interleaves, so that no arithmetic piece describes it.
    #[error(
        "pattern head {head} has no closed form ({reason}); give `table_blocks`, the number of blocks over which to \
         tabulate it"
    )]
    NoClosedForm {
        /// Pattern head.
        head: usize,
        /// The pieces that interleave.
        reason: String,
    },

    /// A length that a table does not cover.
    #[error(
        "{blocks} blocks were asked for, but the pattern's table covers {q_blocks} query blocks and {kv_blocks} key blocks"
    )]
    BeyondTable {
        /// Blocks asked for.
        blocks: usize,
        /// Query blocks of the table.
        q_blocks: usize,
        /// Key blocks of the table.
        kv_blocks: usize,
    },

    /// Per-layer strides for another number of layers.
    #[error(
        "`vert_strides` lists {given} strides, but there are {layers} layers; list one for each"
    )]
    LayerStrideCount {
        /// Strides given.
        given: usize,
        /// Layers.
        layers: usize,
    },

    /// Per-layer strides for a rule that has none, or several.
    #[error(
        "`vert_strides` needs a rule with one vertical stride (local_stride, bidirectional_relative, \
         bidirectional_absolute or strided), but the rule is {rule}"
    )]
    LayerStrideRule {
        /// The rule given.
        rule: String,
    },

    /// A dense layer that does not exist.
    #[error("layer {layer} is listed as dense, but layers are 0..{layers}")]
    LayerOutside {
        /// The layer listed.
        layer: usize,
        /// Layers.
        layers: usize,
    },

    /// A preset name that does not exist.
    #[error("no preset is called {name:?}; the presets are {accepted}")]
    UnknownPreset {
        /// The name given.
        name: String,
        /// All names.
        accepted: String,
    },
}
