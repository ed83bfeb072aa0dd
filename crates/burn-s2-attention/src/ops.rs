//! The backend extension trait: what a backend provides so that S2 attention runs on it.

// Without a backend there is nothing to give the arguments to.
#![cfg_attr(
    not(any(feature = "flex", feature = "cubecl")),
    allow(unused_variables)
)]

use std::sync::Arc;

#[cfg(feature = "cubecl")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
#[cfg(feature = "cubecl")]
use burn::tensor::DType;
use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cache::{CacheProblem, PoolShape};
use serde::{Deserialize, Serialize};

/// The order of a tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Layout {
    /// `[batch, heads, seq, head_dim]`: the order of Burn's own `attention`.
    #[default]
    Bhsd,
    /// `[batch, seq, heads, head_dim]`: what a projection gives before heads and tokens are swapped.
    Bshd,
}

impl Layout {
    /// The shape of a tensor with these sizes.
    pub(crate) fn shape(self, [batch, heads, seq, width]: [usize; 4]) -> [usize; 4] {
        match self {
            Self::Bhsd => [batch, heads, seq, width],
            Self::Bshd => [batch, seq, heads, width],
        }
    }

    /// The inverse of [`Layout::shape`]: `[batch, heads, seq, width]`.
    pub(crate) fn sizes(self, shape: [usize; 4]) -> [usize; 4] {
        // Swapping the middle axes is its own inverse.
        self.shape(shape)
    }
}

/// A checked call: the problem and how its tensors lie.
#[derive(Debug, Clone)]
pub struct AttentionCall {
    /// Shapes, pattern, scale and positions.
    pub problem: Arc<AttentionProblem>,
    /// The axes of `q`, `k`, `v`, `out` and their gradients.
    pub layout: Layout,
}

/// Which gradients a backward call is to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedGradients {
    /// The gradient of `q`.
    pub q: bool,
    /// The gradient of `k`.
    pub k: bool,
    /// The gradient of `v`.
    pub v: bool,
}

/// Which pages of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Keys, of `head_dim` elements.
    Keys,
    /// Values, of `value_dim` elements.
    Values,
}

/// A checked call on the pages of a layer.
#[derive(Debug, Clone)]
pub struct PagesCall {
    /// Sizes of the step and of the pages.
    pub problem: Arc<CacheProblem>,
    /// Keys or values.
    pub side: Side,
}

impl PagesCall {
    /// The sizes of the pages.
    pub fn pool(&self) -> PoolShape {
        match self.side {
            Side::Keys => self.problem.key_pool(),
            Side::Values => self.problem.value_pool(),
        }
    }
}

/// S2 attention on a backend. Users call [`s2_attention`](crate::s2_attention) and [`KvCache`](crate::cache::KvCache), which
/// check their inputs first.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    Fusion: cfg(feature = "cubecl"),
    Autodiff: cfg(feature = "autodiff"),
)]
pub trait S2AttentionOps: Backend {
    /// Returns `out` (the shape of `q` with the value dim, the dtype of `q`), `lse`, f32 `[batch, heads, seq_q]`, and what
    /// `out` lost by rounding to its dtype.
    ///
    /// The inputs have the shapes of `call.problem` in the order of `call.layout`, and one dtype. The last tensor is for
    /// [`s2_attention_backward`](Self::s2_attention_backward) of the same backend; where it is not asked for by `differentiate`,
    /// or the backend has no use for it, a tensor of one element stands in its place.
    #[fusion(meta = forward_specs)]
    fn s2_attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: AttentionCall,
        differentiate: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Returns the gradients of `q`, `k` and `v`, given those of `out` and `lse`.
    ///
    /// A gradient that is not `wanted` is not computed; a tensor of one element stands in its place.
    #[allow(clippy::too_many_arguments)]
    #[fusion(meta = backward_specs)]
    fn s2_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        rounding: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        d_lse: FloatTensor<Self>,
        call: AttentionCall,
        wanted: WantedGradients,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Returns `pages` with the new keys or values of a step in them, at the places that its table names; rows without a page
    /// are skipped. Written in place where `pages` has no other owner.
    ///
    /// `pages` is `[pages, block, width]`, `rows` `[rows, kv_heads, width]` of the same dtype, `table` holds the
    /// words of `call.problem.layout()`, i32. No gradients.
    #[fusion(meta = pages_specs)]
    fn s2_cache_write(
        pages: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        table: IntTensor<Self>,
        call: PagesCall,
    ) -> FloatTensor<Self>;

    /// Returns the keys or values of an item of a step next to each other, `[1, kv_len, kv_heads, width]`: those before the step
    /// from its pages, the new ones from `rows`. What blocks without a page hold is undefined: no query of the item attends
    /// them. No gradients.
    ///
    /// Tensors as in [`s2_cache_write`](Self::s2_cache_write). `kv_len` is that of the item, in tokens.
    #[fusion(meta = read_specs)]
    fn s2_cache_read(
        pages: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        table: IntTensor<Self>,
        call: PagesCall,
        item: usize,
        kv_len: usize,
    ) -> FloatTensor<Self>;

    /// Returns `out [rows, num_heads, value_dim]`, of the dtype of `q`, and `lse`, f32 `[rows, num_heads]`, of a few new tokens
    /// of each item of a table over its pages. Rows of no item are undefined. No gradients.
    ///
    /// `q` is `[rows, num_heads, head_dim]`; `k_pages` and `v_pages` have its dtype, the sizes of `problem`, and already hold the
    /// new keys and values.
    #[fusion(meta = decode_specs)]
    fn s2_decode(
        q: FloatTensor<Self>,
        k_pages: FloatTensor<Self>,
        v_pages: FloatTensor<Self>,
        table: IntTensor<Self>,
        problem: Arc<CacheProblem>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Whether `out` of this dtype is kept with what rounding took from it.
#[cfg(feature = "cubecl")]
pub(crate) fn keeps_rounding(dtype: DType, differentiate: bool) -> bool {
    differentiate && matches!(dtype, DType::F16 | DType::BF16)
}

/// The shape of a tensor that stands in the place of another.
#[cfg(feature = "cubecl")]
pub(crate) const PLACEHOLDER: [usize; 4] = [1; 4];

#[cfg(feature = "cubecl")]
fn forward_specs(
    q: &TensorSpec,
    _k: &TensorSpec,
    _v: &TensorSpec,
    call: &AttentionCall,
    differentiate: &bool,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let shape = call.problem.shape();
    let out = call.layout.shape(shape.out_sizes());
    let rounding = if keeps_rounding(q.dtype, *differentiate) {
        out
    } else {
        PLACEHOLDER
    };
    (
        TensorSpec::new(out.into(), q.dtype),
        TensorSpec::new(
            [shape.batch, shape.num_heads, shape.seq_q].into(),
            DType::F32,
        ),
        TensorSpec::new(rounding.into(), q.dtype),
    )
}

#[cfg(feature = "cubecl")]
#[allow(clippy::too_many_arguments)]
fn backward_specs(
    q: &TensorSpec,
    k: &TensorSpec,
    v: &TensorSpec,
    _out: &TensorSpec,
    _lse: &TensorSpec,
    _rounding: &TensorSpec,
    _d_out: &TensorSpec,
    _d_lse: &TensorSpec,
    _call: &AttentionCall,
    wanted: &WantedGradients,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let spec = |like: &TensorSpec, wanted: bool| {
        let shape = if wanted {
            like.shape.clone()
        } else {
            PLACEHOLDER.into()
        };
        TensorSpec::new(shape, like.dtype)
    };
    (spec(q, wanted.q), spec(k, wanted.k), spec(v, wanted.v))
}

#[cfg(feature = "cubecl")]
fn pages_specs(
    pages: &TensorSpec,
    _rows: &TensorSpec,
    _table: &TensorSpec,
    _call: &PagesCall,
) -> TensorSpec {
    pages.clone()
}

#[cfg(feature = "cubecl")]
fn read_specs(
    pages: &TensorSpec,
    _rows: &TensorSpec,
    _table: &TensorSpec,
    call: &PagesCall,
    _item: &usize,
    kv_len: &usize,
) -> TensorSpec {
    let shape = [
        1,
        *kv_len,
        call.problem.shape().num_kv_heads,
        call.pool().width,
    ];
    TensorSpec::new(shape.into(), pages.dtype)
}

#[cfg(feature = "cubecl")]
fn decode_specs(
    q: &TensorSpec,
    _k_pages: &TensorSpec,
    _v_pages: &TensorSpec,
    _table: &TensorSpec,
    problem: &Arc<CacheProblem>,
) -> (TensorSpec, TensorSpec) {
    let shape = problem.shape();
    let lse = [shape.rows, shape.num_heads];
    (
        TensorSpec::new([lse[0], lse[1], shape.value_dim].into(), q.dtype),
        TensorSpec::new(lse.into(), DType::F32),
    )
}
