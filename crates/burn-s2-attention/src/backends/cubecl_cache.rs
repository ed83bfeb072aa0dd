//! GPUs: the operations on a cache's pages.
//!
//! Pages are written in place: a pool has one owner, its cache. Nothing here waits for the device.

use std::sync::Arc;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use s2_attention_kernels::cache::CacheProblem;
use s2_attention_kernels::cube::{CacheSide, CubeDecode, DeviceTensor};

use super::cubecl::{device_tensor, empty, readable};
use super::prepared::prepared;
use crate::ops::{Layout, PagesCall, Side};

/// `pages` with the rows of a step in them.
pub(super) fn write(
    pages: CubeTensor,
    rows: CubeTensor,
    table: CubeTensor,
    call: &PagesCall,
) -> CubeTensor {
    let pages = owned(pages);
    ready(&pages, &call.problem)
        .write(
            side(call.side),
            &device_rows(&readable(rows)),
            &pages.handle,
            &into_contiguous(table).handle,
        )
        .unwrap_or_else(|error| panic!("{error}"));
    pages
}

/// The pages, next to each other, in a buffer of their own.
fn owned(pages: CubeTensor) -> CubeTensor {
    let pages = into_contiguous(pages);
    if pages.can_mut() {
        return pages;
    }
    // Not `copy`: a device may lay the rows of a new tensor apart. A buffer that was just allocated has another owner until the
    // device's thread has seen it, so that pages which grew come here now and then.
    let (client, device, dtype) = (pages.client.clone(), pages.device.clone(), pages.dtype);
    let elem = dtype_to_elem_type(dtype);
    let copied = cubecl::std::tensor::into_contiguous(&client, pages.binding(), elem);
    CubeTensor::new(client, copied.handle, *copied.metadata, device, dtype)
}

/// The keys or values of an item, next to each other.
pub(super) fn read(
    pages: CubeTensor,
    rows: CubeTensor,
    table: CubeTensor,
    call: &PagesCall,
    item: usize,
    kv_len: usize,
) -> CubeTensor {
    let shape = [
        1,
        kv_len,
        call.problem.shape().num_kv_heads,
        call.pool().width,
    ];
    let out = empty(&pages, shape.into(), pages.dtype);
    ready(&pages, &call.problem)
        .read(
            side(call.side),
            &into_contiguous(pages).handle,
            &device_rows(&readable(rows)),
            &into_contiguous(table).handle,
            item,
            &device_tensor(&out, Layout::Bshd),
            kv_len,
        )
        .unwrap_or_else(|error| panic!("{error}"));
    out
}

/// `out` and `lse` of a decode step.
pub(super) fn decode(
    q: CubeTensor,
    pages: [CubeTensor; 2],
    table: CubeTensor,
    problem: &Arc<CacheProblem>,
) -> (CubeTensor, CubeTensor) {
    let shape = problem.shape();
    let [rows, heads] = [shape.rows, shape.num_heads];
    let q = readable(q);
    let out = empty(&q, [rows, heads, shape.value_dim].into(), q.dtype);
    let lse = empty(&q, [rows, heads].into(), DType::F32);
    let [k, v] = pages.map(into_contiguous);
    ready(&q, problem)
        .decode(
            &device_rows(&q),
            &k.handle,
            &v.handle,
            &into_contiguous(table).handle,
            &device_rows(&out),
            &lse.handle,
        )
        .unwrap_or_else(|error| panic!("{error}"));
    (out, lse)
}

/// Calls reach a backend checked.
fn ready(like: &CubeTensor, problem: &Arc<CacheProblem>) -> Arc<CubeDecode> {
    prepared(&like.device, problem, like.dtype).unwrap_or_else(|error| panic!("{error}"))
}

fn side(side: Side) -> CacheSide {
    match side {
        Side::Keys => CacheSide::Keys,
        Side::Values => CacheSide::Values,
    }
}

/// Rows `[rows, heads, width]` as the kernels' `[1, heads, rows, width]`.
pub(super) fn device_rows(tensor: &CubeTensor) -> DeviceTensor {
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    // Along an axis of one element there is nowhere to go, and strides say anything.
    let stride = |axis: usize| if shape[axis] == 1 { 0 } else { strides[axis] };
    DeviceTensor {
        handle: tensor.handle.clone(),
        strides: [0, stride(1), stride(0), 1],
    }
}
