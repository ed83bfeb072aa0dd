//! Options of the operation.

use s2_attention_kernels::{LeftPadding, SequenceSpan};

use crate::Layout;

/// What a call can change. The default is a softmax scale of `1/sqrt(head_dim)`, tensors `[batch, heads, seq, dim]`,
/// keys from position 0 and the last query on the last key.
///
/// ```
/// use burn_s2_attention::{Layout, S2AttentionOptions};
///
/// let options = S2AttentionOptions::default().with_layout(Layout::Bshd).with_scale(0.1);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct S2AttentionOptions {
    /// The factor on the scores before the softmax; `None` stands for `1/sqrt(head_dim)`.
    pub scale: Option<f64>,
    /// The order of the axes of `q`, `k`, `v` and `out`.
    pub layout: Layout,
    /// Where each sequence of the batch stands; `None` stands for keys from position 0 and the last query on the last
    /// key.
    pub positions: Option<Vec<SequenceSpan>>,
    /// Rows of padding before the first token of each sequence; `None` stands for none. The rows behind them are tokens,
    /// as many as `positions` say, or all. Padding is never read; its output and gradients are 0, its lse is `-inf`.
    pub left_padding: Option<Vec<LeftPadding>>,
}

impl S2AttentionOptions {
    /// Sets the softmax scale.
    pub fn with_scale(mut self, scale: f64) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Sets the order of the axes.
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Places the sequences, one span for each of the batch.
    pub fn with_positions(mut self, positions: Vec<SequenceSpan>) -> Self {
        self.positions = Some(positions);
        self
    }

    /// Lets each sequence begin behind rows of padding, one entry for each of the batch.
    ///
    /// ```
    /// use burn_s2_attention::{LeftPadding, S2AttentionOptions};
    ///
    /// // Two prompts that end in the last row of their batch, the second 3 tokens shorter.
    /// let padding = [0, 3].map(|rows| LeftPadding { q: rows, kv: rows });
    /// let options = S2AttentionOptions::default().with_left_padding(padding.to_vec());
    /// ```
    pub fn with_left_padding(mut self, left_padding: Vec<LeftPadding>) -> Self {
        self.left_padding = Some(left_padding);
        self
    }
}
