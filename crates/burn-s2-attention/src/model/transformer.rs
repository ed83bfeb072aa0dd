//! The model: embedding, layers, norm and head.

use burn::module::{Content, Module, ModuleDisplay};
use burn::nn::{Dropout, Embedding, Linear, norm::Normalization};
use burn::tensor::{Int, Tensor};

use super::TransformerBlock;
use crate::PackedSequences;
use crate::module::layers;

/// A decoder-only transformer whose layers follow a [`LayerSchedule`](crate::LayerSchedule) of dense and S2 attention. Created by
/// [`HybridTransformerConfig`](super::HybridTransformerConfig).
///
/// Printing it shows the pattern of every layer. It is causal where its patterns are.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct HybridTransformer {
    /// Token embedding, `[vocab_size, d_model]`; also the head where `head` is `None`.
    pub embedding: Embedding,
    /// Dropout of the embeddings.
    pub dropout: Dropout,
    /// The layers, from the input to the output.
    pub layers: Vec<TransformerBlock>,
    /// Norm after the last layer.
    pub norm: Normalization,
    /// Head of its own, `[d_model, vocab_size]`.
    pub head: Option<Linear>,
    pub(super) embedding_multiplier: f64,
    pub(super) logit_multiplier: f64,
}

impl HybridTransformer {
    /// Logits of the token after each token.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, seq]`, values below `vocab_size`
    /// - output: `[batch, seq, vocab_size]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.logits(self.hidden_states(tokens))
    }

    /// What the head reads: the residual stream after the last layer and the final norm.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, seq]`, values below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    pub fn hidden_states(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let x = self
            .layers
            .iter()
            .fold(self.embed(tokens), |x, layer| layer.forward(x));
        layers::norm(&self.norm, x)
    }

    /// [`forward`](Self::forward) of documents of different lengths: no document sees another, and positions begin anew in
    /// each.
    ///
    /// The items of the batch are joined one after the other; `documents` counts their tokens through, so that no document
    /// needs to end with an item. Tokens behind the last document are padding, whose logits mean nothing.
    ///
    /// ```
    /// use burn::tensor::{Device, Int, Tensor};
    /// use burn_s2_attention::model::HybridTransformerConfig;
    /// use burn_s2_attention::{LayerSchedule, PackedSequences, PatternConfig};
    ///
    /// # if cfg!(feature = "flex") {
    /// let layers = LayerSchedule::new(PatternConfig::local_stride(2, 4, 16, 4));
    /// let model = HybridTransformerConfig::new(256, 64, 2, 4, layers).init(&Device::default());
    /// // Three documents of 70, 100 and 30 tokens in two rows of 100.
    /// let documents = PackedSequences::from_lengths(&[70, 100, 30])?;
    /// let tokens = Tensor::<2, Int>::zeros([2, 100], &Device::default());
    /// assert_eq!(model.forward_packed(tokens, &documents).dims(), [2, 100, 256]);
    /// # }
    /// # Ok::<(), burn_s2_attention::ProblemError>(())
    /// ```
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, seq]`, values below `vocab_size`; `documents` has at most `batch * seq` tokens
    /// - output: `[batch, seq, vocab_size]`
    ///
    /// # Panics
    ///
    /// As [`S2Attention::forward_packed`](crate::module::S2Attention::forward_packed).
    pub fn forward_packed(&self, tokens: Tensor<2, Int>, documents: &PackedSequences) -> Tensor<3> {
        let [batch, seq] = tokens.dims();
        let tokens = tokens.reshape([1, batch * seq]);
        let x = self.layers.iter().fold(self.embed(tokens), |x, layer| {
            layer.forward_packed(x, documents)
        });
        let logits = self.logits(layers::norm(&self.norm, x));
        logits.reshape([batch, seq, self.vocab_size()])
    }

    /// The residual stream before the first layer.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, seq]`, values below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    pub fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let x = self.embedding.forward(tokens);
        self.dropout.forward(scale(x, self.embedding_multiplier))
    }

    /// Applies the head to what [`hidden_states`](Self::hidden_states) returns.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch, seq, d_model]`
    /// - output: `[batch, seq, vocab_size]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let logits = match &self.head {
            Some(head) => layers::linear(head, hidden),
            None => layers::product(hidden, self.embedding.weight.val().transpose(), None),
        };
        scale(logits, self.logit_multiplier)
    }

    /// Distinct tokens.
    pub fn vocab_size(&self) -> usize {
        self.embedding.weight.lazy_shape()[0]
    }
}

/// A factor of 1 costs no pass over the tensor.
fn scale(x: Tensor<3>, factor: f64) -> Tensor<3> {
    if factor == 1.0 { x } else { x * factor }
}

impl ModuleDisplay for HybridTransformer {
    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content.add("embedding", &self.embedding);
        let content = self
            .layers
            .iter()
            .enumerate()
            .fold(content, |content, (index, layer)| {
                content.add(&format!("layer {index}"), layer)
            });
        // The enum itself would print its variant around the layer.
        let content = match &self.norm {
            Normalization::Rms(norm) => content.add("norm", norm),
            Normalization::Layer(norm) => content.add("norm", norm),
            norm => content.add("norm", norm),
        };
        match &self.head {
            Some(head) => content.add("head", head).optional(),
            None => content.add("head", "tied to the embedding").optional(),
        }
    }
}
