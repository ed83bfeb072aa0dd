//! Flex: Burn's pure Rust CPU backend, through the CPU engine of `s2-attention-kernels`.
//!
//! f32 and f64 are computed in their own type; f16 and bf16 are widened to f32 first and rounded once at the end.
//!
//! The forward pass hands over `out` in the type of `q` and `lse` in f32. That is all the digits of f32, but `D =
//! rowsum(dO * O)` moves a whole row of dS and wants more of `out` than a 2-byte type keeps, and f64 gradients want more
//! of `lse`: for these types the backward pass computes both again.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout as FlexLayout};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Bytes, DType, Element, FloatDType, Shape};
use bytemuck::Pod;
use s2_attention_kernels::cache::CacheProblem;
use s2_attention_kernels::cpu::{self, Gradients, Real, Rows, RowsMut, Saved};

use super::flex_cache;
use crate::ops::{AttentionCall, Layout, PagesCall, S2AttentionOps, WantedGradients};

impl S2AttentionOps for Flex {
    fn s2_attention_forward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        call: AttentionCall,
        _differentiate: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let dtype = q.dtype();
        let (out, lse) = match dtype {
            DType::F64 => forward::<f64>(q, k, v, &call),
            _ => forward::<f32>(q, k, v, &call),
        };
        (out, lse, placeholder(dtype))
    }

    fn s2_attention_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        out: FlexTensor,
        lse: FlexTensor,
        _rounding: FlexTensor,
        d_out: FlexTensor,
        d_lse: FlexTensor,
        call: AttentionCall,
        wanted: WantedGradients,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let tensors = [q, k, v, out, d_out];
        match tensors[0].dtype() {
            DType::F64 => backward::<f64>(tensors, lse, d_lse, &call, wanted),
            _ => backward::<f32>(tensors, lse, d_lse, &call, wanted),
        }
    }

    fn s2_cache_write(
        pages: FlexTensor,
        rows: FlexTensor,
        table: FlexTensor,
        call: PagesCall,
    ) -> FlexTensor {
        flex_cache::write(pages, rows, &table, &call)
    }

    fn s2_cache_read(
        pages: FlexTensor,
        rows: FlexTensor,
        table: FlexTensor,
        call: PagesCall,
        item: usize,
        kv_len: usize,
    ) -> FlexTensor {
        flex_cache::read(pages, rows, &table, &call, item, kv_len)
    }

    fn s2_decode(
        q: FlexTensor,
        k_pages: FlexTensor,
        v_pages: FlexTensor,
        table: FlexTensor,
        problem: Arc<CacheProblem>,
    ) -> (FlexTensor, FlexTensor) {
        flex_cache::decode(q, [k_pages, v_pages], &table, &problem)
    }
}

fn forward<F: Real + Element>(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    call: &AttentionCall,
) -> (FlexTensor, FlexTensor) {
    let dtype = q.dtype();
    let [q, k, v] = [q, k, v].map(readable::<F>);
    let (out, lse) = run_forward::<F>(&q, &k, &v, call);
    let shape = call.problem.shape();
    let lse_shape = Shape::new([shape.batch, shape.num_heads, shape.seq_q]);
    let lse = Flex::float_cast(tensor(lse, lse_shape, F::dtype()), FloatDType::F32);
    (out.into_tensor(dtype), lse)
}

/// `out` and `lse` in the type that is computed in.
fn run_forward<F: Real + Element>(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    call: &AttentionCall,
) -> (Output<F>, Vec<F>) {
    let shape = call.problem.shape();
    let mut out = Output::<F>::new(shape.out_sizes(), call);
    let mut lse = vec![F::ZERO; shape.batch * shape.num_heads * shape.seq_q];
    cpu::forward(
        &call.problem,
        rows(q, call.layout),
        rows(k, call.layout),
        rows(v, call.layout),
        out.rows(),
        &mut lse,
    );
    (out, lse)
}

fn backward<F: Real + Element>(
    tensors: [FlexTensor; 5],
    lse: FlexTensor,
    d_lse: FlexTensor,
    call: &AttentionCall,
    wanted: WantedGradients,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let dtype = tensors[0].dtype();
    let shape = call.problem.shape();
    let [q, k, v, out, d_out] = tensors.map(readable::<F>);
    let (out, lse) = if dtype == DType::F32 {
        (out, lse.to_contiguous())
    } else {
        let (out, lse) = run_forward::<F>(&q, &k, &v, call);
        let lse_shape = Shape::new([lse.len()]);
        (
            out.into_tensor(F::dtype()),
            tensor(lse, lse_shape, F::dtype()),
        )
    };
    let d_lse = Flex::float_cast(d_lse, FloatDType::from(F::dtype())).to_contiguous();

    let gradient = |wanted: bool, sizes: [usize; 4]| wanted.then(|| Output::<F>::new(sizes, call));
    let mut dq = gradient(wanted.q, shape.q_sizes());
    let mut dk = gradient(wanted.k, shape.k_sizes());
    let mut dv = gradient(wanted.v, shape.v_sizes());
    cpu::backward(
        &call.problem,
        Saved {
            q: rows(&q, call.layout),
            k: rows(&k, call.layout),
            v: rows(&v, call.layout),
            out: rows(&out, call.layout),
            lse: contiguous(&lse),
            d_out: rows(&d_out, call.layout),
            d_lse: Some(contiguous(&d_lse)),
        },
        Gradients {
            dq: dq.as_mut().map(Output::rows),
            dk: dk.as_mut().map(Output::rows),
            dv: dv.as_mut().map(Output::rows),
        },
    );
    let finish = |gradient: Option<Output<F>>| match gradient {
        Some(gradient) => gradient.into_tensor(dtype),
        None => placeholder(dtype),
    };
    (finish(dq), finish(dk), finish(dv))
}

/// Stands in the place of a tensor that is not asked for.
fn placeholder(dtype: DType) -> FlexTensor {
    FlexTensor::zeros(Shape::new([1; 4]), dtype)
}

/// The tensor in the type that the engine computes in, with neighbouring elements in each row. Any other strides are
/// read as they are.
pub(super) fn readable<F: Element>(tensor: FlexTensor) -> FlexTensor {
    let tensor = Flex::float_cast(tensor, FloatDType::from(F::dtype()));
    let strides = tensor.layout().strides();
    if strides.last() == Some(&1) && strides.iter().all(|stride| *stride >= 0) {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

fn rows<F: Real + Element>(tensor: &FlexTensor, layout: Layout) -> Rows<'_, F> {
    let strides = tensor.layout().strides();
    let [batch, head, token, _] = layout
        .sizes([strides[0], strides[1], strides[2], strides[3]].map(|stride| stride as usize));
    Rows::new(
        &tensor.storage()[tensor.layout().start_offset()..],
        [batch, head, token],
    )
}

/// The elements of a contiguous tensor.
pub(super) fn contiguous<F: Element + Pod>(tensor: &FlexTensor) -> &[F] {
    let start = tensor.layout().start_offset();
    &tensor.storage()[start..start + tensor.layout().num_elements()]
}

/// A contiguous tensor.
pub(super) fn tensor<E: Element>(data: Vec<E>, shape: Shape, dtype: DType) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(data),
        FlexLayout::contiguous(shape),
        dtype,
    )
}

/// A contiguous tensor that the engine writes to.
struct Output<F> {
    data: Vec<F>,
    shape: [usize; 4],
    strides: [usize; 3],
}

impl<F: Real + Element> Output<F> {
    fn new(sizes: [usize; 4], call: &AttentionCall) -> Self {
        let shape = call.layout.shape(sizes);
        let token_strides = [
            shape[1] * shape[2] * shape[3],
            shape[2] * shape[3],
            shape[3],
            1,
        ];
        let [batch, head, token, _] = call.layout.sizes(token_strides);
        Self {
            data: vec![F::ZERO; sizes.iter().product()],
            shape,
            strides: [batch, head, token],
        }
    }

    fn rows(&mut self) -> RowsMut<'_, F> {
        RowsMut::new(&mut self.data, self.strides)
    }

    /// Rounds to `dtype`.
    fn into_tensor(self, dtype: DType) -> FlexTensor {
        let tensor = tensor(self.data, Shape::new(self.shape), F::dtype());
        Flex::float_cast(tensor, FloatDType::from(dtype))
    }
}
