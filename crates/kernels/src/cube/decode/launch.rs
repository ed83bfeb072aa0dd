//! Launches of decode and of the cache's kernels. No kernel reads or writes beyond its tensors, which are checked, as long as the
//! table is that of the step.

use cubecl::client::Client;
use cubecl::ir::{AddressType, ElemType};
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::call::CubeDecode;
use super::combine;
use super::plan::{DecodeChoice, record_bytes, tokens_of_item, units};
use super::sizes::sizes_arg;
use super::table::Sections;
use crate::cache::{CacheProblem, CacheShape, PoolShape};
use crate::cube::cache::{UNITS, lanes, read, write};
use crate::cube::checks::check_count;
use crate::cube::error::CubeError;
use crate::cube::launch::{address_type, gcd, grid};
use crate::cube::select::Engine;
use crate::cube::tensors::DeviceTensor;
use crate::cube::vector_tensor::{VectorTensorArg, tensor_arg};
use crate::cube::{mma, unit};

impl CubeDecode {
    fn addresses(&self, handles: &[&Handle]) -> AddressType {
        address_type(
            handles.iter().map(|handle| handle.size()),
            self.dtype.size(),
        )
    }

    fn table_arg(&self, table: &Handle) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(table.clone(), self.problem.layout().len()) }
    }

    fn sections(&self) -> Sections {
        Sections::of(&self.problem.layout())
    }

    /// Numbers of the records of all parts.
    fn records_len(&self) -> usize {
        self.choice.splits * record_bytes(self.problem.shape()) / size_of::<f32>()
    }
}

/// Cubes that visit parts of lists.
fn decode_cubes(shape: &CacheShape, choice: &DecodeChoice) -> usize {
    choice.splits * shape.items * shape.num_kv_heads * choice.tiles
}

/// Cubes that combine parts: one for each query head and token that items begin with.
fn combine_cubes(shape: &CacheShape) -> usize {
    shape.num_heads * shape.items * tokens_of_item(shape)
}

/// Cubes that write an item's rows.
fn write_chunks(shape: &CacheShape, pool: PoolShape, lanes: usize) -> usize {
    let vectors = shape.rows * shape.num_kv_heads * pool.width / lanes;
    vectors.div_ceil(shape.items * UNITS)
}

/// Whether the device launches all cubes of a step's kernels at once, but for those that read an item.
pub(super) fn check_grids(
    client: &Client,
    problem: &CacheProblem,
    dtype: ElemType,
    choice: &DecodeChoice,
) -> Result<(), CubeError> {
    let shape = problem.shape();
    let lanes = lanes(client.properties(), dtype);
    let [keys, values] = [problem.key_pool(), problem.value_pool()]
        .map(|pool| shape.items * write_chunks(shape, pool, lanes));
    [
        decode_cubes(shape, choice),
        combine_cubes(shape),
        keys,
        values,
    ]
    .into_iter()
    .try_for_each(|cubes| grid(client, cubes).map(|_| ()))
}

/// The grid that reads an item of `tokens` tokens.
pub(super) fn read_grid(
    client: &Client,
    shape: &CacheShape,
    pool: PoolShape,
    lanes: usize,
    tokens: usize,
) -> Result<CubeCount, CubeError> {
    let blocks = tokens.div_ceil(pool.block_size);
    let all = blocks
        .saturating_mul(pool.block_size)
        .saturating_add(tokens.min(shape.rows));
    let vectors = (all.saturating_mul(shape.num_kv_heads)).saturating_mul(pool.width / lanes);
    check_count("vectors of an item", vectors)?;
    grid(client, vectors.div_ceil(UNITS))
}

/// A pool as a tensor: its rows one after another.
fn pool_arg(pages: &Handle, pool: PoolShape, of: (usize, ElemType)) -> VectorTensorArg {
    let rows = DeviceTensor {
        handle: pages.clone(),
        strides: [0, 0, pool.width, 1],
    };
    tensor_arg(&rows, of)
}

/// Launches the parts of a call and returns the records that they leave.
pub(super) fn decode(
    call: &CubeDecode,
    q: &DeviceTensor,
    k_pages: &Handle,
    v_pages: &Handle,
    table: &Handle,
) -> Result<Handle, CubeError> {
    let (shape, choice) = (call.problem.shape(), &call.choice);
    let [_, head, token, _] = q.strides;
    let lanes = match choice.engine {
        Engine::Unit => unit::size::LANES,
        _ => mma::LANES,
    };
    // Queries of all tokens and heads in one count, as far apart as both are multiples of.
    let apart = gcd(head, token).max(lanes);
    let last = ((shape.rows - 1).saturating_mul(token))
        .saturating_add((shape.num_heads - 1).saturating_mul(head));
    check_count("queries, counted by their strides,", last / apart)?;
    let count = grid(&call.client, decode_cubes(shape, choice))?;
    let partials = call.client.empty(call.records_len() * size_of::<f32>());
    let of = (lanes, call.dtype);
    let kernel = match choice.engine {
        Engine::Unit => unit::decode::decode::launch_unchecked,
        _ => mma::decode::decode::launch_unchecked,
    };
    unsafe {
        kernel(
            &call.client,
            count,
            CubeDim::new_1d(units(choice) as u32),
            call.addresses(&[&q.handle, k_pages, v_pages]),
            lanes,
            tensor_arg(q, of),
            pool_arg(k_pages, call.problem.key_pool(), of),
            pool_arg(v_pages, call.problem.value_pool(), of),
            BufferArg::from_raw_parts(partials.clone(), call.records_len()),
            call.table_arg(table),
            BufferArg::from_raw_parts(call.index.clone(), call.index_len),
            call.problem.scale() as f32,
            f32::NEG_INFINITY,
            (token / apart) as u32,
            (head / apart) as u32,
            (apart / lanes) as u32,
            sizes_arg(call.sections(), shape, choice.splits),
            choice.tiles as u32,
            call.config,
            call.dtype,
        );
    }
    Ok(partials)
}

/// Launches what combines the records of all parts.
pub(super) fn combine(
    call: &CubeDecode,
    partials: &Handle,
    table: &Handle,
    out: &DeviceTensor,
    lse: &Handle,
) -> Result<(), CubeError> {
    let (shape, choice) = (call.problem.shape(), &call.choice);
    let count = grid(&call.client, combine_cubes(shape))?;
    let sharers = combine::sharers(choice.splits);
    let (across, down) = combine::layout(shape.value_dim, sharers);
    unsafe {
        combine::combine::launch_unchecked(
            &call.client,
            count,
            CubeDim::new_1d((across * down) as u32),
            call.addresses(&[&out.handle]),
            combine::LANES,
            BufferArg::from_raw_parts(partials.clone(), call.records_len() / combine::LANES),
            tensor_arg(out, (combine::LANES, call.dtype)),
            BufferArg::from_raw_parts(lse.clone(), shape.rows * shape.num_heads),
            call.table_arg(table),
            f32::NEG_INFINITY,
            sizes_arg(call.sections(), shape, choice.splits),
            tokens_of_item(shape) as u32,
            shape.value_dim,
            sharers,
            call.config.results,
            call.dtype,
        );
    }
    Ok(())
}

/// Launches the copy of new rows to a pool.
pub(super) fn write(
    call: &CubeDecode,
    rows: &DeviceTensor,
    pages: &Handle,
    table: &Handle,
    (pool, lanes): (PoolShape, usize),
) -> Result<(), CubeError> {
    let shape = call.problem.shape();
    let chunks = write_chunks(shape, pool, lanes);
    unsafe {
        write::write::launch_unchecked(
            &call.client,
            grid(&call.client, shape.items * chunks)?,
            CubeDim::new_1d(UNITS as u32),
            call.addresses(&[&rows.handle, pages]),
            lanes,
            tensor_arg(rows, (lanes, call.dtype)),
            BufferArg::from_raw_parts(pages.clone(), pool.len() / lanes),
            call.table_arg(table),
            call.sections().arg(),
            shape.items as u32,
            shape.num_kv_heads as u32,
            chunks as u32,
            pool.block_size as u32,
            (pool.width / lanes) as u32,
            call.dtype,
        );
    }
    Ok(())
}

/// Launches the copy of an item's rows from a pool and from new rows.
pub(super) fn read(
    call: &CubeDecode,
    pages: &Handle,
    rows: &DeviceTensor,
    table: &Handle,
    item: usize,
    (out, tokens): (&DeviceTensor, usize),
    (pool, lanes): (PoolShape, usize),
) -> Result<(), CubeError> {
    let shape = call.problem.shape();
    let blocks = tokens.div_ceil(pool.block_size);
    let count = read_grid(&call.client, shape, pool, lanes, tokens)?;
    unsafe {
        read::read::launch_unchecked(
            &call.client,
            count,
            CubeDim::new_1d(UNITS as u32),
            call.addresses(&[pages, &rows.handle, &out.handle]),
            lanes,
            BufferArg::from_raw_parts(pages.clone(), pool.len() / lanes),
            tensor_arg(rows, (lanes, call.dtype)),
            tensor_arg(out, (lanes, call.dtype)),
            call.table_arg(table),
            call.sections().arg(),
            item as u32,
            shape.num_kv_heads as u32,
            blocks as u32,
            pool.block_size as u32,
            (pool.width / lanes) as u32,
            call.dtype,
        );
    }
    Ok(())
}
