//! Multi-head attention with an S2 pattern, as a module with weights.

use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::{Tensor, assert_shape};

use super::layers;
use super::projection::{Qkv, QkvProjection};
use super::rope::{Rope, assert_starts};
use crate::cache::{CacheLayer, KvCache};
use crate::packed::packed_batch;
use crate::{Layout, PackedSequences, Pattern, S2AttentionOptions, SequenceSpan, s2_attention};

/// Multi-head attention with an S2 pattern: projections, optional query/key norm, rotary positions, block-sparse attention, output
/// projection. Created by [`S2AttentionConfig`](super::S2AttentionConfig).
///
/// [`forward`](Self::forward) is [`project`](Self::project), [`rotate`](Self::rotate), [`attend`](Self::attend) and the output
/// projection in a row; [`forward_cached`](Self::forward_cached) does the same for the new tokens of a cache.
///
/// There is no dropout of attention weights: the sparse operation never holds them.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct S2Attention {
    /// Projections to queries, keys and values.
    pub qkv: QkvProjection,
    /// Norm of the queries over `head_dim`.
    pub q_norm: Option<RmsNorm>,
    /// Norm of the keys over `head_dim`.
    pub k_norm: Option<RmsNorm>,
    /// Output projection, `[num_heads * head_dim, d_model]`.
    pub output: Linear,
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: Option<f64>,
    #[module(skip)]
    pub(super) rope: Option<Rope>,
    #[module(skip)]
    pub(super) pattern: Pattern,
}

impl S2Attention {
    /// Attends from every token of `x`, whose first token is at position 0.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    ///
    /// If the last axis of `x` is not `d_model`, or if [`s2_attention`] refuses the call.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_from(x, &[0])
    }

    /// [`forward`](Self::forward) of sequences that start at other positions. Nothing before the start is attended.
    ///
    /// `starts` are positions in tokens: one entry for all batch items, or one per item.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and if `starts` has neither one entry nor one per batch item.
    pub fn forward_from(&self, x: Tensor<3>, starts: &[usize]) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let spans = spans_from(starts, batch, seq);
        let qkv = self.rotate(self.project(x), starts);
        self.project_output(self.attend(qkv, spans))
    }

    /// Queries, keys and values of `x` before rotation, normalised where the module has query/key norms.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, d_model]`
    /// - output: see [`Qkv`]
    ///
    /// # Panics
    ///
    /// If the last axis of `x` is not `d_model`.
    pub fn project(&self, x: Tensor<3>) -> Qkv {
        let d_model = self.d_model();
        assert_shape!(x, [_, _, d_model]);
        let Qkv { q, k, v } = self
            .qkv
            .forward(x, self.num_heads, self.num_kv_heads, self.head_dim);
        let normalise = |norm: &Option<RmsNorm>, x: Tensor<4>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        Qkv {
            q: normalise(&self.q_norm, q),
            k: normalise(&self.k_norm, k),
            v,
        }
    }

    /// Rotates queries and keys whose first token is at position `starts` (one entry, or one per batch item); without rope they
    /// stay as they are.
    pub fn rotate(&self, qkv: Qkv, starts: &[usize]) -> Qkv {
        let Some(rope) = &self.rope else { return qkv };
        Qkv {
            q: rope.forward(qkv.q, Layout::Bshd, starts),
            k: rope.forward(qkv.k, Layout::Bshd, starts),
            v: qkv.v,
        }
    }

    /// The sparse attention itself. Keys and values may be longer than the queries, as those of a cache are.
    ///
    /// `positions` are the absolute spans of queries and keys, one per batch item; the default aligns the ends of the two.
    ///
    /// # Shapes
    ///
    /// - `qkv`: see [`Qkv`]; `k` and `v` may have another `seq` than `q`
    /// - output: `[batch, seq, num_heads, head_dim]`
    ///
    /// # Panics
    ///
    /// If [`s2_attention`] refuses the call.
    pub fn attend(&self, qkv: Qkv, positions: Option<Vec<SequenceSpan>>) -> Tensor<4> {
        let options = S2AttentionOptions {
            scale: self.scale,
            layout: Layout::Bshd,
            positions,
            left_padding: None,
        };
        s2_attention(qkv.q, qkv.k, qkv.v, &self.pattern, &options)
    }

    /// Attends within each of `documents`, whose tokens lie one after the other in `x`: positions begin anew in each.
    ///
    /// # Shapes
    ///
    /// - `x`: `[1, total, d_model]`
    /// - output: `[1, total, d_model]`
    ///
    /// # Panics
    ///
    /// If the last axis of `x` is not `d_model`, the documents have other keys than queries, or
    /// [`s2_attention_packed`](crate::s2_attention_packed) refuses the call.
    pub fn forward_packed(&self, x: Tensor<3>, documents: &PackedSequences) -> Tensor<3> {
        let qkv = self.rotate_packed(self.project(x), documents);
        self.project_output(self.attend_packed(qkv, documents))
    }

    /// [`rotate`](Self::rotate) where positions begin anew in each document.
    ///
    /// # Panics
    ///
    /// If the documents have other keys than queries, or more tokens than there are.
    pub fn rotate_packed(&self, qkv: Qkv, documents: &PackedSequences) -> Qkv {
        assert!(
            documents.are_whole(),
            "the documents have other keys than queries; a layer that makes both of the same tokens needs equal \
             cu_seqlens_q and cu_seqlens_kv"
        );
        let Some(rope) = &self.rope else { return qkv };
        Qkv {
            q: rope.forward_packed(qkv.q, Layout::Bshd, documents),
            k: rope.forward_packed(qkv.k, Layout::Bshd, documents),
            v: qkv.v,
        }
    }

    /// [`attend`](Self::attend) within each document.
    ///
    /// # Shapes
    ///
    /// - `qkv`: see [`Qkv`], of a batch of 1
    /// - output: `[1, total, num_heads, head_dim]`
    ///
    /// # Panics
    ///
    /// If [`s2_attention_packed`](crate::s2_attention_packed) refuses the call.
    pub fn attend_packed(&self, qkv: Qkv, documents: &PackedSequences) -> Tensor<4> {
        let Qkv { q, k, v } = qkv;
        match packed_batch([q, k, v], &self.pattern, documents, self.scale) {
            Ok((out, _)) => out,
            Err(error) => panic!("{error}"),
        }
    }

    /// Attends from the new tokens of the step that `cache` is in, and keeps their keys and values for later steps.
    ///
    /// `layer` is the place of this module among the layers of the cache, which must be made for it. No gradients pass through
    /// what is attended.
    ///
    /// # Shapes
    ///
    /// - `x`: `[1, rows, d_model]`, the rows of [`CacheStep`](crate::cache::CacheStep); more at the end mean nothing
    /// - output: `[1, rows, d_model]`
    ///
    /// # Panics
    ///
    /// If the last axis of `x` is not `d_model`, [`KvCache::check_layer`] refuses the layer,
    /// [`rotate_cached`](Self::rotate_cached) has no positions for the rows, or [`KvCache::attend`] refuses the call.
    pub fn forward_cached(&self, x: Tensor<3>, cache: &mut KvCache, layer: usize) -> Tensor<3> {
        cache
            .check_layer(layer, &self.cache_layer())
            .unwrap_or_else(|error| panic!("{error}"));
        let Qkv { q, k, v } = self.rotate_cached(self.project(x), cache);
        self.project_output(cache.attend(layer, q, k, v))
    }

    /// [`rotate`](Self::rotate) by the positions of the step that `cache` is in.
    ///
    /// # Panics
    ///
    /// If the cache is in no step, or `qkv` has more rows than this step, any before it, and what is reserved.
    pub fn rotate_cached(&self, qkv: Qkv, cache: &KvCache) -> Qkv {
        let Some(rope) = &self.rope else { return qkv };
        let positions = cache
            .positions(qkv.q.dims()[1])
            .unwrap_or_else(|error| panic!("{error}"));
        let tensors = [qkv.q, qkv.k];
        let [q, k] = rope.turn_at(tensors, Layout::Bshd, positions, cache.position_limit());
        Qkv { q, k, v: qkv.v }
    }

    /// What a cache needs to know of this layer.
    pub fn cache_layer(&self) -> CacheLayer {
        CacheLayer {
            pattern: self.pattern.clone(),
            head_dim: self.head_dim,
            value_dim: self.head_dim,
            scale: self.scale,
        }
    }

    /// Joins the heads and applies the output projection.
    ///
    /// # Shapes
    ///
    /// - `heads`: `[batch, seq, num_heads, head_dim]`
    /// - output: `[batch, seq, d_model]`
    pub fn project_output(&self, heads: Tensor<4>) -> Tensor<3> {
        let [batch, seq, num_heads, head_dim] = heads.dims();
        let joined = heads.reshape([batch, seq, num_heads * head_dim]);
        layers::linear(&self.output, joined)
    }

    /// Width of the residual stream.
    pub fn d_model(&self) -> usize {
        self.output.weight.lazy_shape()[1]
    }

    /// Query heads.
    pub fn num_heads(&self) -> usize {
        self.num_heads
    }

    /// Key/value heads.
    pub fn num_kv_heads(&self) -> usize {
        self.num_kv_heads
    }

    /// Elements per head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The pattern of this layer.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The rotary embedding of this layer.
    pub fn rope(&self) -> Option<&Rope> {
        self.rope.as_ref()
    }

    /// Takes the rope of another layer with the same configuration, so that cosines and sines are computed once for both.
    pub(crate) fn share_rope(&mut self, other: &Self) {
        self.rope.clone_from(&other.rope);
    }
}

/// Spans of sequences that attend only themselves; starts of zero are the default and need none.
fn spans_from(starts: &[usize], batch: usize, seq: usize) -> Option<Vec<SequenceSpan>> {
    assert_starts(starts, batch);
    if starts.iter().all(|&start| start == 0) {
        return None;
    }
    let span = |&start| SequenceSpan {
        q_start: start,
        q_len: seq,
        kv_start: start,
        kv_len: seq,
    };
    // One start stands for all items.
    Some(starts.iter().cycle().take(batch).map(span).collect())
}

impl ModuleDisplay for S2Attention {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("d_model", &self.d_model())
            .add("num_heads", &self.num_heads)
            .add("num_kv_heads", &self.num_kv_heads)
            .add("head_dim", &self.head_dim)
            .add("rope", &self.rope.is_some())
            .add("qk_norm", &self.q_norm.is_some())
            .add("bias", &self.output.bias.is_some())
            .add("pattern", &self.pattern.to_string())
            .optional()
    }
}
