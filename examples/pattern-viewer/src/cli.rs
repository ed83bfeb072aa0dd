//! The command line.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use s2_attention_pattern::Preset;

/// Shows what an attention pattern reads, keeps and costs.
///
/// Without a pattern: S2-Attention with 8 heads, a local window of 3 blocks and every 8th block
/// before it. A pattern's own options follow its name: `pattern-viewer local-stride --vert-stride 4`.
/// Other rules for each head, unions and intersections come from a file (`config`).
#[derive(Debug, Parser)]
#[command(
    version,
    subcommand_value_name = "PATTERN",
    subcommand_help_heading = "Patterns"
)]
pub struct Cli {
    /// Where the pattern comes from.
    #[command(subcommand)]
    pub source: Option<Source>,

    /// The heads it is spread over.
    #[command(flatten)]
    pub heads: HeadOptions,

    /// What is shown of it.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Where a pattern comes from. Sizes are in blocks, and local sizes count the diagonal block.
#[derive(Clone, Debug, Subcommand)]
pub enum Source {
    /// Causal local window and every so many columns before it (S2-Attention, Phi-3-small)
    LocalStride {
        /// Blocks of the local window
        #[arg(long, default_value_t = 3)]
        local_blocks: usize,
        /// Blocks from one column to the next
        #[arg(long, default_value_t = 8)]
        vert_stride: usize,
    },
    /// Causal, a stride for each range of distances
    Ranges {
        /// Stride of each range
        #[arg(long, value_delimiter = ',', default_value = "1,4,8")]
        strides: Vec<usize>,
        /// End (exclusive) of each range but the last
        #[arg(long, value_delimiter = ',', default_value = "3,12")]
        range_blocks: Vec<usize>,
    },
    /// Bidirectional local window, and strides counted from its edges
    BidirectionalRelative {
        #[command(flatten)]
        local: LocalOptions,
    },
    /// Bidirectional local window, and columns that differ from head to head
    BidirectionalAbsolute {
        #[command(flatten)]
        local: LocalOptions,
    },
    /// Sliding window
    SlidingWindow {
        #[command(flatten)]
        window: WindowOptions,
    },
    /// Sliding window and the first blocks
    SinkWindow {
        /// First blocks that every query attends
        #[arg(long, default_value_t = 1)]
        sink_blocks: usize,
        #[command(flatten)]
        window: WindowOptions,
    },
    /// Diagonal and every so many columns
    Strided {
        /// Blocks from one column to the next
        #[arg(long, default_value_t = 8)]
        vert_stride: usize,
        /// Attend what comes after the query too
        #[arg(long)]
        bidirectional: bool,
    },
    /// Every block
    Dense {
        /// Attend what comes after the query too
        #[arg(long)]
        bidirectional: bool,
    },
    /// A mask from a JSON file: {"causal": true, "kv_blocks": 3, "rows": [[[0], [0, 1], [1, 2]]]}
    Custom {
        /// For each head (or once) and row, the attended key blocks
        mask: PathBuf,
    },
    /// A published pattern by name: phi3_small, dkernel or hhst
    Preset {
        /// Its name
        name: Preset,
    },
    /// A pattern from a JSON file, any rule and composition
    Config {
        /// Such as the output of `--print-config`
        file: PathBuf,
    },
}

/// A bidirectional window and stride.
#[derive(Clone, Debug, Args)]
pub struct LocalOptions {
    /// Blocks of the window to the left
    #[arg(long, default_value_t = 2)]
    pub local_left: usize,
    /// Blocks of the window to the right
    #[arg(long, default_value_t = 2)]
    pub local_right: usize,
    /// Blocks from one column to the next
    #[arg(long, default_value_t = 8)]
    pub vert_stride: usize,
}

/// A window.
#[derive(Clone, Debug, Args)]
pub struct WindowOptions {
    /// Blocks to the left
    #[arg(long, default_value_t = 4)]
    pub left: usize,
    /// Blocks to the right; without it the window is causal
    #[arg(long)]
    pub right: Option<usize>,
}

/// The heads of a pattern. What is given replaces what a preset or file says.
#[derive(Debug, Args)]
#[command(next_help_heading = "Heads")]
pub struct HeadOptions {
    /// Tokens of a block [default: 64]
    #[arg(long, global = true)]
    pub block_size: Option<usize>,
    /// Query heads [default: 8, or what the preset or mask has]
    #[arg(long, global = true, visible_alias = "heads")]
    pub num_heads: Option<usize>,
    /// Key/value heads [default: as many as query heads, or what the preset has]
    #[arg(long, global = true, visible_alias = "kv-heads")]
    pub num_kv_heads: Option<usize>,
    /// Blocks by which columns move from head to head
    #[arg(long, global = true, allow_negative_numbers = true)]
    pub head_step: Option<i64>,
    /// Blocks by which the columns of all heads move
    #[arg(long, global = true, allow_negative_numbers = true)]
    pub head_offset: Option<i64>,
    /// Give all heads the same columns
    #[arg(long, global = true)]
    pub homogeneous: bool,
    /// Heads, from the last, that attend everything
    #[arg(long, global = true)]
    pub dense_heads: Option<usize>,
    /// Give the query heads of a key/value head the same pattern
    #[arg(long, global = true)]
    pub per_kv_head: bool,
    /// Keep only these query heads, such as 4..8
    #[arg(long, global = true, value_parser = range, value_name = "START..END")]
    pub active_heads: Option<Range<usize>>,
    /// Blocks over which a composition without a closed form is tabulated
    #[arg(long, global = true)]
    pub table_blocks: Option<usize>,
}

/// What is shown of a pattern.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Tokens of the sequence [default: 24 blocks, or what a mask covers]
    #[arg(long, global = true)]
    pub seq_len: Option<NonZeroUsize>,
    /// Heads side by side, or all in one
    #[arg(long, global = true, value_enum, default_value_t)]
    pub view: ViewChoice,
    /// Show this head alone
    #[arg(long, global = true, conflicts_with = "view")]
    pub head: Option<usize>,
    /// Write an SVG picture instead of showing text
    #[arg(long, global = true, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write a PNG picture instead of showing text
    #[arg(long, global = true, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Pixels for each unit of the SVG picture
    #[arg(long, global = true, default_value_t = 2.0)]
    pub png_scale: f32,
    /// Columns of text [default: as wide as the terminal, or 80]
    #[arg(long, global = true)]
    pub width: Option<NonZeroUsize>,
    /// Colour in text
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: ColorChoice,
    /// Print the pattern as JSON and nothing else
    #[arg(long, global = true)]
    pub print_config: bool,
}

/// What a picture shows.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ViewChoice {
    /// All heads side by side, and together
    #[default]
    Heads,
    /// All heads together, shaded by how many attend a block
    Union,
}

/// When text is coloured.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that shows it
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let (start, end) = text
        .split_once("..")
        .ok_or("give the first head and the end (exclusive), such as 4..8")?;
    let number = |part: &str| part.parse().map_err(|error| format!("{part:?}: {error}"));
    Ok(number(start)?..number(end)?)
}
