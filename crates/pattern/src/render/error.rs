//! What can be wrong with a picture.

use super::MAX_PICTURE_BLOCKS;
use crate::error::PatternError;

/// A picture that cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// A sequence without blocks or beyond the pattern's table.
    #[error(transparent)]
    Pattern(#[from] PatternError),

    /// A sequence that is too long to draw.
    #[error(
        "{blocks} blocks are too many to draw, at most {MAX_PICTURE_BLOCKS} are; \
         draw a shorter sequence or use larger blocks"
    )]
    TooManyBlocks {
        /// Blocks asked for.
        blocks: usize,
    },

    /// A head that the pattern does not have.
    #[error("head {head} was asked for, but the (active) heads are 0..{num_heads}")]
    NoSuchHead {
        /// Head asked for.
        head: usize,
        /// Active query heads.
        num_heads: usize,
    },

    /// A model without layers.
    #[error("no layers were given; give the pattern of at least one")]
    NoLayers,

    /// A PNG that cannot be made.
    #[cfg(feature = "render-png")]
    #[error("a scale of {scale} cannot be drawn: {reason}; 1 to 4 suit most pictures")]
    Png {
        /// Pixels for each unit of the SVG picture.
        scale: String,
        /// What is wrong.
        reason: String,
    },
}
