//! Flex: the operations on a cache's pages.
//!
//! Pages stay in their own type: a decode step widens what it reads, and never the pool.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Element, FloatDType, Shape, bf16, f16};
use bytemuck::Pod;
use s2_attention_kernels::cache::CacheProblem;
use s2_attention_kernels::cpu::{self, Real, Rows, RowsMut, Stored};

use super::flex::{contiguous, readable, tensor};
use crate::ops::PagesCall;

/// Calls a function with the type of a float tensor.
macro_rules! with_type {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::F64 => $function::<f64>($($argument),*),
            DType::F16 => $function::<f16>($($argument),*),
            DType::BF16 => $function::<bf16>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}

/// `pages` with the rows of a step in them.
pub(super) fn write(
    pages: FlexTensor,
    rows: FlexTensor,
    table: &FlexTensor,
    call: &PagesCall,
) -> FlexTensor {
    with_type!(pages.dtype(), write_as(pages, rows, table, call))
}

fn write_as<T: Element + Pod>(
    pages: FlexTensor,
    rows: FlexTensor,
    table: &FlexTensor,
    call: &PagesCall,
) -> FlexTensor {
    // `to_contiguous` of a tensor that is contiguous would be a second owner, and the write a copy.
    let mut pages = match pages.layout().contiguous_offsets() {
        Some((0, _)) => pages,
        _ => pages.to_contiguous(),
    };
    let rows = readable::<T>(rows);
    let table = table.to_contiguous();
    cpu::cache_write::<T>(
        &call.pool(),
        &call.problem.layout(),
        contiguous(&table),
        strided(&rows),
        rows.layout().shape()[0],
        pages.storage_mut(),
    );
    pages
}

/// The keys or values of an item, next to each other.
pub(super) fn read(
    pages: FlexTensor,
    rows: FlexTensor,
    table: &FlexTensor,
    call: &PagesCall,
    item: usize,
    kv_len: usize,
) -> FlexTensor {
    let dtype = pages.dtype();
    with_type!(dtype, read_as(&pages, rows, table, call, item, kv_len))
}

fn read_as<T: Element + Pod>(
    pages: &FlexTensor,
    rows: FlexTensor,
    table: &FlexTensor,
    call: &PagesCall,
    item: usize,
    kv_len: usize,
) -> FlexTensor {
    let (kv_heads, width) = (call.problem.shape().num_kv_heads, call.pool().width);
    let [pages, table] = [pages, table].map(FlexTensor::to_contiguous);
    let rows = readable::<T>(rows);
    let mut out = FlexTensor::zeros(Shape::new([1, kv_len, kv_heads, width]), T::dtype());
    cpu::cache_read::<T>(
        &call.pool(),
        &call.problem.layout(),
        contiguous(&table),
        item,
        contiguous(&pages),
        strided(&rows),
        rows.layout().shape()[0],
        RowsMut::new(out.storage_mut(), [0, width, kv_heads * width]),
    );
    out
}

/// `out` and `lse` of a decode step.
pub(super) fn decode(
    q: FlexTensor,
    pages: [FlexTensor; 2],
    table: &FlexTensor,
    problem: &CacheProblem,
) -> (FlexTensor, FlexTensor) {
    let table = table.to_contiguous();
    let [k, v] = pages.map(|pages| pages.to_contiguous());
    let call = (&k, &v, &table, problem);
    match q.dtype() {
        DType::F64 => decode_as::<f64, f64>(q, call),
        DType::F16 => decode_as::<f32, f16>(q, call),
        DType::BF16 => decode_as::<f32, bf16>(q, call),
        _ => decode_as::<f32, f32>(q, call),
    }
}

fn decode_as<F: Real + Element, T: Stored<F> + Element + Pod>(
    q: FlexTensor,
    (k, v, table, problem): (&FlexTensor, &FlexTensor, &FlexTensor, &CacheProblem),
) -> (FlexTensor, FlexTensor) {
    let dtype = q.dtype();
    let q = readable::<F>(q);
    let shape = problem.shape();
    let [rows, heads, width] = [shape.rows, shape.num_heads, shape.value_dim];
    let mut out = vec![F::ZERO; rows * heads * width];
    let mut lse = vec![F::ZERO; rows * heads];
    cpu::decode::<F, T>(
        problem,
        strided(&q),
        contiguous(k),
        contiguous(v),
        contiguous(table),
        RowsMut::new(&mut out, [0, width, heads * width]),
        &mut lse,
    );
    let out = tensor(out, Shape::new([rows, heads, width]), F::dtype());
    let lse = tensor(lse, Shape::new([rows, heads]), F::dtype());
    (
        Flex::float_cast(out, FloatDType::from(dtype)),
        Flex::float_cast(lse, FloatDType::F32),
    )
}

/// Rows `[rows, heads, width]` as the engine's `[1, heads, rows, width]`.
fn strided<T: Element + Pod>(rows: &FlexTensor) -> Rows<'_, T> {
    let layout = rows.layout();
    let stride = |axis: usize| layout.strides()[axis] as usize;
    Rows::new(
        &rows.storage()[layout.start_offset()..],
        [0, stride(1), stride(0)],
    )
}
