//! One pre-norm layer of a transformer.

use burn::module::{Content, Module, ModuleDisplay};
use burn::nn::{Dropout, norm::Normalization};
use burn::tensor::Tensor;

use crate::PackedSequences;
use crate::cache::KvCache;
use crate::module::{Mlp, S2Attention, layers};

/// A pre-norm layer: `x += dropout(attention(norm(x)))`, then `x += dropout(mlp(norm(x)))`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct TransformerBlock {
    /// Norm before the attention.
    pub attention_norm: Normalization,
    /// Attention with this layer's pattern.
    pub attention: S2Attention,
    /// Norm before the feed-forward network.
    pub mlp_norm: Normalization,
    /// Feed-forward network.
    pub mlp: Mlp,
    /// Dropout of both branches.
    pub dropout: Dropout,
}

impl TransformerBlock {
    /// Applies the layer to sequences that start at position 0.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normed = layers::norm(&self.attention_norm, x.clone());
        let attended = self.attention.forward(normed);
        self.feed_forward(x + self.dropout.forward(attended))
    }

    /// Applies the layer to documents that lie one after the other: positions begin anew in each.
    ///
    /// # Shapes
    ///
    /// - `x`: `[1, total, d_model]`
    /// - output: `[1, total, d_model]`
    ///
    /// # Panics
    ///
    /// As [`S2Attention::forward_packed`].
    pub fn forward_packed(&self, x: Tensor<3>, documents: &PackedSequences) -> Tensor<3> {
        let normed = layers::norm(&self.attention_norm, x.clone());
        let attended = self.attention.forward_packed(normed, documents);
        self.feed_forward(x + self.dropout.forward(attended))
    }

    /// Applies the layer to the new tokens of the step that `cache` is in, as its layer `layer`.
    ///
    /// # Shapes
    ///
    /// - `x`: `[1, rows, d_model]`
    /// - output: `[1, rows, d_model]`
    ///
    /// # Panics
    ///
    /// As [`S2Attention::forward_cached`].
    pub fn forward_cached(&self, x: Tensor<3>, cache: &mut KvCache, layer: usize) -> Tensor<3> {
        let normed = layers::norm(&self.attention_norm, x.clone());
        let attended = self.attention.forward_cached(normed, cache, layer);
        self.feed_forward(x + self.dropout.forward(attended))
    }

    /// The second half of the layer; `x` already has what was attended added.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    pub fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let fed = self.mlp.forward(layers::norm(&self.mlp_norm, x.clone()));
        x + self.dropout.forward(fed)
    }
}

impl ModuleDisplay for TransformerBlock {
    fn custom_content(&self, content: Content) -> Option<Content> {
        let (attention, mlp) = (&self.attention, &self.mlp);
        let line = format!(
            "{}, head_dim {}, {:?} mlp {}, {} params",
            attention.pattern(),
            attention.head_dim(),
            mlp.kind(),
            mlp.d_ff(),
            self.num_params()
        );
        content.add_formatted(&line).optional()
    }
}
