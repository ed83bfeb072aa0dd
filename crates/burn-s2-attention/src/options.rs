//! Options of the operation.

use s2_attention_kernels::SequenceSpan;

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
}
