//! The operation on documents of different lengths, packed one after the other without padding.

use burn::tensor::Tensor;
use s2_attention_kernels::AttentionProblem;

use crate::functional::checked_call;
use crate::{Layout, PackedSequences, Pattern, S2AttentionError};

/// [`s2_attention`](crate::s2_attention) within each of `documents`, whose tokens lie one after the other in `q`, `k` and `v`.
///
/// Positions and blocks begin anew in each document, and nothing passes from one to another: not even NaN, in either
/// direction of the pass. The last query of a document stands on its last key. `scale` is the factor on the scores before the
/// softmax; `None` stands for `1/sqrt(head_dim)`.
///
/// Where documents are parts of longer tensors, rows behind the last one are padding: they are not read, and their output and
/// gradients are 0.
///
/// # Shapes
/// - q: `[total_q, num_heads, head_dim]`, tokens of all documents
/// - k: `[total_kv, num_kv_heads, head_dim]`
/// - v: `[total_kv, num_kv_heads, value_dim]`
/// - output: `[total_q, num_heads, value_dim]`, of the inputs' dtype
///
/// # Panics
/// With the text of the error that [`try_s2_attention_packed`] returns.
///
/// # Example
#[cfg_attr(feature = "flex", doc = "```")]
#[cfg_attr(not(feature = "flex"), doc = "```no_run")]
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_s2_attention::{PackedSequences, PatternConfig, s2_attention_packed};
///
/// // Three documents of 40, 7 and 53 tokens: cu_seqlens of 0, 40, 47 and 100.
/// let documents = PackedSequences::from_lengths(&[40, 7, 53])?;
/// let pattern = PatternConfig::local_stride(2, 4, 16, 4).build()?;
/// let device = Device::default();
/// let [q, k, v] = [(); 3].map(|_| Tensor::random([100, 4, 32], Distribution::Default, &device));
/// let out = s2_attention_packed(q, k, v, &pattern, &documents, None);
/// assert_eq!(out.dims(), [100, 4, 32]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn s2_attention_packed(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    pattern: &Pattern,
    documents: &PackedSequences,
    scale: Option<f64>,
) -> Tensor<3> {
    s2_attention_packed_with_lse(q, k, v, pattern, documents, scale).0
}

/// [`s2_attention_packed`], with a typed error in place of a panic.
///
/// # Errors
/// For shapes, dtypes, devices, head counts or documents that cannot be honoured; nothing has run then.
pub fn try_s2_attention_packed(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    pattern: &Pattern,
    documents: &PackedSequences,
    scale: Option<f64>,
) -> Result<Tensor<3>, S2AttentionError> {
    try_s2_attention_packed_with_lse(q, k, v, pattern, documents, scale).map(|(out, _)| out)
}

/// [`s2_attention_packed`] and the log-sum-exp of each query's scores: f32 `[num_heads, total_q]`, natural logarithm, `-inf`
/// where a query attends nothing and in padding. Both carry gradients.
///
/// # Panics
/// With the text of the error that [`try_s2_attention_packed_with_lse`] returns.
pub fn s2_attention_packed_with_lse(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    pattern: &Pattern,
    documents: &PackedSequences,
    scale: Option<f64>,
) -> (Tensor<3>, Tensor<2>) {
    try_s2_attention_packed_with_lse(q, k, v, pattern, documents, scale)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// [`s2_attention_packed_with_lse`], with a typed error in place of a panic.
///
/// # Errors
/// As [`try_s2_attention_packed`].
pub fn try_s2_attention_packed_with_lse(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    pattern: &Pattern,
    documents: &PackedSequences,
    scale: Option<f64>,
) -> Result<(Tensor<3>, Tensor<2>), S2AttentionError> {
    let batch = [q, k, v].map(|tensor| tensor.unsqueeze_dim(0));
    let (out, lse) = packed_batch(batch, pattern, documents, scale)?;
    Ok((out.squeeze_dim(0), lse.squeeze_dim(0)))
}

/// The call on the only item of a batch, `[1, total, heads, width]`.
pub(crate) fn packed_batch(
    tensors: [Tensor<4>; 3],
    pattern: &Pattern,
    documents: &PackedSequences,
    scale: Option<f64>,
) -> Result<(Tensor<4>, Tensor<3>), S2AttentionError> {
    checked_call(tensors, Layout::Bshd, |shape| {
        AttentionProblem::packed(shape, pattern, scale, documents)
    })
}
