//! GPUs: Burn's CubeCL backend, through the CubeCL engines of `s2-attention-kernels`.
//!
//! Tensors are read through their strides; what has rows that a kernel cannot read whole vectors of is copied first. dK and dV
//! come in one buffer, as the engines write them.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cache::CacheProblem;
use s2_attention_kernels::cube::{
    CubeAttention, CubeDecode, CubeError, DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs,
};

use super::cubecl_cache;
use super::prepared::prepared;
use crate::ops::{
    AttentionCall, Layout, PLACEHOLDER, PagesCall, S2AttentionOps, WantedGradients, keeps_rounding,
};

/// Elements that rows begin at multiples of.
const VECTOR: usize = 8;
/// Bytes that a tensor begins at a multiple of inside a buffer that it shares: the most that WebGPU asks for.
const ALIGNMENT: usize = 256;

/// Checks a call for `device` and keeps it ready.
pub(crate) fn check(
    device: &CubeDevice,
    problem: &Arc<AttentionProblem>,
    dtype: DType,
) -> Result<(), CubeError> {
    prepared::<CubeAttention>(device, problem, dtype).map(|_| ())
}

/// Checks whether `device` can decode such a call, and takes what kernels need of its pattern. It is not kept: those that run have
/// other sizes.
pub(crate) fn check_cache(
    device: &CubeDevice,
    problem: CacheProblem,
    dtype: DType,
) -> Result<(), CubeError> {
    let elem = dtype_to_elem_type(dtype);
    CubeDecode::new(&device.client(), Arc::new(problem), elem).map(|_| ())
}

/// Checks a call on a cache of `device`. Nothing is sent or kept.
pub(crate) fn check_cache_call(
    device: &CubeDevice,
    problem: &CacheProblem,
    dtype: DType,
) -> Result<(), CubeError> {
    CubeDecode::check(&device.client(), problem, dtype_to_elem_type(dtype))
}

/// The most pages of a pool.
pub(crate) fn most_pages(
    device: &CubeDevice,
    dtype: DType,
    block_size: usize,
    width: usize,
) -> usize {
    let elem = dtype_to_elem_type(dtype);
    CubeDecode::most_pages(&device.client(), elem, block_size, width)
}

/// Checks whether `device` can read an item of `tokens` tokens of such a call.
pub(crate) fn check_cache_read(
    device: &CubeDevice,
    problem: &CacheProblem,
    dtype: DType,
    tokens: usize,
) -> Result<(), CubeError> {
    CubeDecode::check_read(&device.client(), problem, dtype_to_elem_type(dtype), tokens)
}

impl S2AttentionOps for CubeBackend {
    fn s2_attention_forward(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        call: AttentionCall,
        differentiate: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let like = q.clone();
        let [q, k, v] = [q, k, v].map(readable);
        let shape = *call.problem.shape();
        let out_shape = call.layout.shape(shape.out_sizes());
        let out = empty(&like, out_shape.into(), like.dtype);
        let lse = empty(
            &like,
            [shape.batch, shape.num_heads, shape.seq_q].into(),
            DType::F32,
        );
        let keeps = keeps_rounding(like.dtype, differentiate);
        let rounding = empty(
            &like,
            if keeps { out_shape } else { PLACEHOLDER }.into(),
            like.dtype,
        );
        let outputs = ForwardOutputs {
            out: device_tensor(&out, call.layout),
            rounding: keeps.then(|| device_tensor(&rounding, call.layout)),
            lse: lse.handle.clone(),
        };
        let [q, k, v] = [q, k, v].map(|tensor| device_tensor(&tensor, call.layout));
        ready(&like, &call)
            .forward(&q, &k, &v, &outputs)
            .unwrap_or_else(|error| panic!("{error}"));
        (out, lse, rounding)
    }

    fn s2_attention_backward(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        out: CubeTensor,
        lse: CubeTensor,
        rounding: CubeTensor,
        d_out: CubeTensor,
        d_lse: CubeTensor,
        call: AttentionCall,
        wanted: WantedGradients,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let like = q.clone();
        let shape = *call.problem.shape();
        let keeps = rounding.shape() == out.shape() && keeps_rounding(like.dtype, true);
        let [q, k, v, out, rounding, d_out] = [q, k, v, out, rounding, d_out]
            .map(|tensor| device_tensor(&readable(tensor), call.layout));
        let saved = SavedOutputs {
            forward: ForwardOutputs {
                out,
                rounding: keeps.then_some(rounding),
                lse: into_contiguous(lse).handle,
            },
            d_out,
            d_lse: into_contiguous(d_lse).handle,
        };
        let placeholder = || empty(&like, PLACEHOLDER.into(), like.dtype);
        let dq = wanted
            .q
            .then(|| empty(&like, call.layout.shape(shape.q_sizes()).into(), like.dtype));
        let keys = KeyTensors::new(&like, &call, wanted);
        ready(&like, &call)
            .backward(
                &q,
                &k,
                &v,
                &saved,
                dq.as_ref()
                    .map(|dq| device_tensor(dq, call.layout))
                    .as_ref(),
                keys.gradients(call.layout).as_ref(),
            )
            .unwrap_or_else(|error| panic!("{error}"));
        (
            dq.unwrap_or_else(placeholder),
            keys.dk.unwrap_or_else(placeholder),
            keys.dv.unwrap_or_else(placeholder),
        )
    }

    fn s2_cache_write(
        pages: CubeTensor,
        rows: CubeTensor,
        table: CubeTensor,
        call: PagesCall,
    ) -> CubeTensor {
        cubecl_cache::write(pages, rows, table, &call)
    }

    fn s2_cache_read(
        pages: CubeTensor,
        rows: CubeTensor,
        table: CubeTensor,
        call: PagesCall,
        item: usize,
        kv_len: usize,
    ) -> CubeTensor {
        cubecl_cache::read(pages, rows, table, &call, item, kv_len)
    }

    fn s2_decode(
        q: CubeTensor,
        k_pages: CubeTensor,
        v_pages: CubeTensor,
        table: CubeTensor,
        problem: Arc<CacheProblem>,
    ) -> (CubeTensor, CubeTensor) {
        cubecl_cache::decode(q, [k_pages, v_pages], table, &problem)
    }
}

/// dK and dV, in one buffer.
struct KeyTensors {
    whole: CubeTensor,
    dk: Option<CubeTensor>,
    dv: Option<CubeTensor>,
    /// The first element of dV.
    dv_at: usize,
}

impl KeyTensors {
    fn new(like: &CubeTensor, call: &AttentionCall, wanted: WantedGradients) -> Self {
        let shape = call.problem.shape();
        let elements = |sizes: [usize; 4], wanted: bool| {
            if wanted { sizes.iter().product() } else { 0 }
        };
        let size = like.dtype.size();
        let dk_len: usize = elements(shape.k_sizes(), wanted.k);
        let dv_len: usize = elements(shape.v_sizes(), wanted.v);
        let dv_at = dk_len.next_multiple_of(ALIGNMENT / size);
        let len = (dv_at + dv_len).max(1);
        let whole = empty(like, [len].into(), like.dtype);
        let part = |sizes: [usize; 4], from: usize, to: usize| {
            let handle = whole.handle.clone();
            CubeTensor::new_contiguous(
                like.client.clone(),
                like.device.clone(),
                call.layout.shape(sizes).into(),
                handle
                    .offset_start((from * size) as u64)
                    .offset_end(((len - to) * size) as u64),
                like.dtype,
            )
        };
        Self {
            dk: wanted.k.then(|| part(shape.k_sizes(), 0, dk_len)),
            dv: wanted
                .v
                .then(|| part(shape.v_sizes(), dv_at, dv_at + dv_len)),
            whole,
            dv_at,
        }
    }

    fn gradients(&self, layout: Layout) -> Option<KeyGradients> {
        let strides = |tensor: &CubeTensor| device_tensor(tensor, layout).strides;
        (self.dk.is_some() || self.dv.is_some()).then(|| KeyGradients {
            handle: self.whole.handle.clone(),
            dk: self.dk.as_ref().map(strides),
            dv: self.dv.as_ref().map(|dv| (self.dv_at, strides(dv))),
        })
    }
}

/// Calls reach a backend checked.
fn ready(like: &CubeTensor, call: &AttentionCall) -> Arc<CubeAttention> {
    prepared(&like.device, &call.problem, like.dtype).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// The tensor, with rows that begin and end with whole vectors.
pub(super) fn readable(tensor: CubeTensor) -> CubeTensor {
    let strides = tensor.meta.strides();
    let start = tensor.handle.offset_start.unwrap_or(0) as usize;
    let (elements, last) = strides.split_at(strides.len() - 1);
    let whole = last == [1]
        && !tensor.meta.is_tiled()
        && start.is_multiple_of(VECTOR * tensor.dtype.size())
        && (elements.iter().zip(tensor.meta.shape().iter()))
            .all(|(stride, size)| *size == 1 || stride.is_multiple_of(VECTOR));
    if whole {
        return tensor;
    }
    let copied = into_contiguous(tensor);
    debug_assert_eq!(copied.meta.strides().last(), Some(&1));
    copied
}

pub(super) fn device_tensor(tensor: &CubeTensor, layout: Layout) -> DeviceTensor {
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    // Along an axis of one element there is nowhere to go, and strides say anything.
    let stride = |axis: usize| match (axis, shape[axis]) {
        (3, _) => 1,
        (_, 1) => 0,
        _ => strides[axis],
    };
    DeviceTensor {
        handle: tensor.handle.clone(),
        strides: layout.sizes([0, 1, 2, 3].map(stride)),
    }
}
