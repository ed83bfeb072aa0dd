//! Gradients: one node for `out`, and a child node that carries the gradient of `lse` to it.
//!
//! A node of Burn's graph tracks one output. `lse` is therefore a child of `out`: its backward step runs first, leaves
//! `d_lse` in a place that both share, and registers a zero gradient for `out`, so that the parent's step runs even
//! when nothing else used `out`.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{AutodiffBackend, Backend, TensorMetadata};
use s2_attention_kernels::cache::CacheProblem;

use crate::ops::{AttentionCall, PagesCall, S2AttentionOps, WantedGradients};

/// Where the child node leaves the gradient of `lse` for its parent.
type LseGradient<B> = Arc<Mutex<Option<FloatTensor<B>>>>;

impl<B: Backend + S2AttentionOps, C: CheckpointStrategy> S2AttentionOps for Autodiff<B, C> {
    fn s2_attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: AttentionCall,
        _differentiate: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [q.node(), k.node(), v.node()];
        match OutBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [&q, &k, &v].map(|input| prep.checkpoint(input));
                let [q, k, v] = [q, k, v].map(|input| input.into_primitive());
                let (out, lse, rounding) = B::s2_attention_forward(q, k, v, call.clone(), true);
                let d_lse = LseGradient::<B>::default();
                let state = OutState {
                    inputs,
                    out: out.clone(),
                    lse: lse.clone(),
                    rounding: rounding.clone(),
                    d_lse: d_lse.clone(),
                    call,
                };
                let like_out = out.clone();
                let out = prep.finish(state, out);
                let lse = match LseBackward
                    .prepare::<C>([out.node()])
                    .compute_bound()
                    .stateful()
                {
                    OpsKind::Tracked(prep) => prep.finish(LseState { like_out, d_lse }, lse),
                    OpsKind::UnTracked(prep) => prep.finish(lse),
                };
                (out, lse, <Self as AutodiffBackend>::from_inner(rounding))
            }
            OpsKind::UnTracked(prep) => {
                let [q, k, v] = [q, k, v].map(|input| input.into_primitive());
                let (out, lse, rounding) = B::s2_attention_forward(q, k, v, call, false);
                let [lse, rounding] = [lse, rounding].map(<Self as AutodiffBackend>::from_inner);
                (prep.finish(out), lse, rounding)
            }
        }
    }

    fn s2_attention_backward(
        _q: FloatTensor<Self>,
        _k: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _out: FloatTensor<Self>,
        _lse: FloatTensor<Self>,
        _rounding: FloatTensor<Self>,
        _d_out: FloatTensor<Self>,
        _d_lse: FloatTensor<Self>,
        _call: AttentionCall,
        _wanted: WantedGradients,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        panic!(
            "s2_attention has first-order gradients only: its backward pass cannot be differentiated"
        )
    }

    // What a cache holds is a constant: gradients end here, for pages and for what is computed of them.

    fn s2_cache_write(
        pages: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        table: IntTensor<Self>,
        call: PagesCall,
    ) -> FloatTensor<Self> {
        let [pages, rows] = [pages, rows].map(|tensor| tensor.into_primitive());
        <Self as AutodiffBackend>::from_inner(B::s2_cache_write(pages, rows, table, call))
    }

    fn s2_cache_read(
        pages: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        table: IntTensor<Self>,
        call: PagesCall,
        item: usize,
        kv_len: usize,
    ) -> FloatTensor<Self> {
        let [pages, rows] = [pages, rows].map(|tensor| tensor.into_primitive());
        let read = B::s2_cache_read(pages, rows, table, call, item, kv_len);
        <Self as AutodiffBackend>::from_inner(read)
    }

    fn s2_decode(
        q: FloatTensor<Self>,
        k_pages: FloatTensor<Self>,
        v_pages: FloatTensor<Self>,
        table: IntTensor<Self>,
        problem: Arc<CacheProblem>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k_pages, v_pages] = [q, k_pages, v_pages].map(|tensor| tensor.into_primitive());
        let (out, lse) = B::s2_decode(q, k_pages, v_pages, table, problem);
        (
            <Self as AutodiffBackend>::from_inner(out),
            <Self as AutodiffBackend>::from_inner(lse),
        )
    }
}

#[derive(Debug)]
struct OutBackward;

#[derive(Debug, Clone)]
struct OutState<B: Backend> {
    /// q, k and v. By node, so that gradient checkpointing may compute them again instead of keeping them.
    inputs: [NodeId; 3],
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    rounding: FloatTensor<B>,
    d_lse: LseGradient<B>,
    call: AttentionCall,
}

impl<B: Backend + S2AttentionOps> Backward<B, 3> for OutBackward {
    type State = OutState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let d_out = grads.consume::<B>(&ops.node);
        let OutState {
            inputs,
            out,
            lse,
            rounding,
            d_lse,
            call,
        } = ops.state;
        let [q, k, v] =
            inputs.map(|input| checkpointer.retrieve_node_output::<FloatTensor<B>>(input));
        let d_lse = d_lse
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .unwrap_or_else(|| zeros_like::<B>(&lse));
        let [q_node, k_node, v_node] = ops.parents;
        let wanted = WantedGradients {
            q: q_node.is_some(),
            k: k_node.is_some(),
            v: v_node.is_some(),
        };
        let (dq, dk, dv) =
            B::s2_attention_backward(q, k, v, out, lse, rounding, d_out, d_lse, call, wanted);
        for (node, gradient) in [(q_node, dq), (k_node, dk), (v_node, dv)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct LseBackward;

#[derive(Debug, Clone)]
struct LseState<B: Backend> {
    like_out: FloatTensor<B>,
    d_lse: LseGradient<B>,
}

impl<B: Backend> Backward<B, 1> for LseBackward {
    type State = LseState<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_lse = grads.consume::<B>(&ops.node);
        *ops.state
            .d_lse
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(d_lse);
        if let [Some(out)] = ops.parents {
            grads.register::<B>(out.id, zeros_like::<B>(&ops.state.like_out));
        }
    }
}

fn zeros_like<B: Backend>(tensor: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(tensor.shape(), &tensor.device(), tensor.dtype().into())
}
