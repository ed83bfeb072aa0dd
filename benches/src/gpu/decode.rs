//! Decode: the last token of each sequence against a cache of all before it.

use std::sync::Arc;

use anyhow::Context;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;
use s2_attention_kernels::cache::{Append, BlockTables, CacheLimits, CacheProblem, CacheShape};
use s2_attention_kernels::cube::CubeDecode;

use super::Gpu;
use super::call::{elem, empty, named, random};
use crate::harness::{Effort, Timing};
use crate::problems::Problem;
use crate::providers::Measured;

/// Bytes that are copied to see how fast a device copies: more than caches hold.
const COPIED: u64 = 512 << 20;

/// A time of decode.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The time and the engine.
    pub measured: Measured,
    /// Parts of each list of pages.
    pub splits: usize,
}

impl Gpu {
    /// Times one new token of each sequence, the last of the problem's.
    ///
    /// # Errors
    /// What the device or the kernels cannot run.
    pub fn time_decode(&self, problem: &Problem, effort: &Effort) -> anyhow::Result<Decoded> {
        let (client, shape) = (&self.client, problem.shape);
        let pattern = problem.pattern.build()?;
        let limits = CacheLimits {
            pages: None,
            max_tokens: shape.seq,
        };
        let mut tables = BlockTables::new(pattern.clone(), limits, true)?;
        let sequences: Vec<_> = (0..shape.batch).map(|_| tables.add()).collect();
        let appends = |tokens: usize| -> Vec<Append> {
            let append = |&sequence| Append { sequence, tokens };
            sequences.iter().map(append).collect()
        };
        let prompt = tables.begin(&appends(shape.seq - 1))?;
        tables.commit(&prompt);
        let step = tables.begin(&appends(1))?;
        let (layout, words) = (step.layout(), step.words());

        let block = pattern.block_size();
        let elem = elem(shape.dtype);
        let pages = tables.num_pages();
        let cache_shape = CacheShape {
            items: shape.batch,
            rows: shape.batch,
            num_heads: shape.heads,
            num_kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            value_dim: shape.head_dim,
            pages,
            capacity: layout.capacity,
            decode_tokens: step.decode_tokens(),
            max_tokens: shape.seq,
        };
        let call = CacheProblem::new(cache_shape, &pattern, None)?;
        let call = CubeDecode::new(client, Arc::new(call), elem)?;
        let pool = || random(client, [1, pages, block, shape.head_dim], elem);
        // `[rows, heads, width]` by head.
        let rows = [1, shape.batch, shape.heads, shape.head_dim];
        let by_head = |mut tensor: s2_attention_kernels::cube::DeviceTensor| {
            tensor.strides.swap(1, 2);
            tensor
        };
        let (k, v) = (pool()?, pool()?);
        let q = by_head(random(client, rows, elem)?);
        let table = client.create_from_slice(i32::as_bytes(&words));
        let out = by_head(empty(client, rows, elem));
        let lse = client.empty(shape.batch * shape.heads * size_of::<f32>());
        let launch = || -> anyhow::Result<()> {
            Ok(call.decode(&q, &k.handle, &v.handle, &table, &out, &lse)?)
        };
        let (peak_bytes, ()) = self.clock.peak_bytes(launch)?;
        let decoded = Decoded {
            measured: Measured {
                timing: self.clock.device(effort, Some(peak_bytes), launch)?,
                engine: Some(named(call.choice().engine)?),
            },
            splits: call.choice().splits,
        };
        client.memory_cleanup()?;
        Ok(decoded)
    }

    /// Times a copy; how many elements of 4 bytes, and the time.
    ///
    /// # Errors
    /// A device that measures nothing.
    pub fn time_copy(&self, effort: &Effort) -> anyhow::Result<(usize, Timing)> {
        let client = &self.client;
        let most = client.properties().memory.max_page_size;
        let len = usize::try_from(COPIED.min(most)).context("a copy")? / size_of::<f32>() / LANES;
        let [from, to] = [0, 1].map(|_| client.empty(len * LANES * size_of::<f32>()));
        let dim = CubeDim::new_1d(256);
        let launch = || -> anyhow::Result<()> {
            let count = calculate_cube_count_elemwise(client, len, dim);
            let [from, to] = [&from, &to]
                .map(|handle| unsafe { BufferArg::from_raw_parts(handle.clone(), len) });
            copy::launch(client, count, dim, LANES, from, to);
            Ok(())
        };
        launch()?;
        let timing = self.clock.device(effort, None, launch)?;
        client.memory_cleanup()?;
        Ok((len * LANES, timing))
    }
}

/// Elements of a vector.
const LANES: usize = 4;

/// Copies all of `from`.
#[cube(launch)]
fn copy<N: Size>(from: &[Vector<f32, N>], to: &mut [Vector<f32, N>]) {
    if ABSOLUTE_POS < to.len() {
        to[ABSOLUTE_POS] = from[ABSOLUTE_POS];
    }
}
