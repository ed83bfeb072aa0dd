//! Decode on a CubeCL device, and the pages that it reads.

use std::sync::Arc;

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::combine::combine_class;
use super::launch;
use super::plan::{DecodeChoice, choose, config, needs};
use super::prepare::{check_pools, check_problem, index_words, most_pages};
use crate::cache::{CacheProblem, PoolShape};
use crate::cube::cache::{CacheSide, lanes};
use crate::cube::checks::{
    check_apart, check_dtype, check_len, check_needs, check_offset, check_tensor,
};
use crate::cube::config::Config;
use crate::cube::error::CubeError;
use crate::cube::first_launch::{Class, launched};
use crate::cube::select::{Engine, say};
use crate::cube::tensors::DeviceTensor;
use crate::cube::{mma, unit};

/// A step's call on a cache, checked for a device and ready to be launched any number of times.
///
/// It holds what a captured call keeps when it is replayed. Lengths and pages are read on the device, from the words of the
/// step's [table](crate::cache::TableLayout), an i32 buffer that may be rewritten between launches; nothing waits for the device.
/// What it holds there takes a few words a head, or the blocks of a custom mask.
#[derive(Clone)]
pub struct CubeDecode {
    pub(super) client: Client,
    pub(super) problem: Arc<CacheProblem>,
    pub(super) dtype: ElemType,
    pub(super) choice: DecodeChoice,
    pub(super) config: Config,
    pub(super) index: Handle,
    pub(super) index_len: usize,
}

impl CubeDecode {
    /// Checks `problem` for the device of `client`, chooses an engine and sends what kernels need of the pattern.
    ///
    /// # Errors
    /// A [`CubeError`] for what the device or the kernels cannot run.
    pub fn new(
        client: &Client,
        problem: Arc<CacheProblem>,
        dtype: ElemType,
    ) -> Result<Self, CubeError> {
        Self::with_engine(client, problem, dtype, None)
    }

    /// Whether the device runs such a call. It sends nothing: that what kernels need of the pattern fits the device is left to
    /// [`CubeDecode::new`] of any call with it.
    ///
    /// # Errors
    /// Those of [`CubeDecode::new`].
    pub fn check(
        client: &Client,
        problem: &CacheProblem,
        dtype: ElemType,
    ) -> Result<(), CubeError> {
        checked(client, problem, dtype, None).map(|_| ())
    }

    /// Whether the device runs [`CubeDecode::read`] of an item of so many tokens.
    ///
    /// # Errors
    /// A [`CubeError`] for more than kernels count, or the device launches at once.
    pub fn check_read(
        client: &Client,
        problem: &CacheProblem,
        dtype: ElemType,
        tokens: usize,
    ) -> Result<(), CubeError> {
        let lanes = lanes(client.properties(), dtype);
        [problem.key_pool(), problem.value_pool()]
            .into_iter()
            .try_for_each(|pool| {
                launch::read_grid(client, problem.shape(), pool, lanes, tokens).map(|_| ())
            })
    }

    /// The most pages, of `block_size` tokens of `width` elements each, that kernels count and the device has in one buffer; at
    /// least one.
    pub fn most_pages(client: &Client, dtype: ElemType, block_size: usize, width: usize) -> usize {
        most_pages(client, dtype, block_size, width)
    }

    /// [`CubeDecode::new`] with this engine, where there is one.
    ///
    /// # Errors
    /// Those of [`CubeDecode::new`], and [`CubeError::Engine`] where the engine does not run this call.
    pub fn with_engine(
        client: &Client,
        problem: Arc<CacheProblem>,
        dtype: ElemType,
        engine: Option<Engine>,
    ) -> Result<Self, CubeError> {
        let choice = checked(client, &problem, dtype, engine)?;
        say(|| {
            let shape = problem.shape();
            format!(
                "s2-attention on {}: decode, {dtype:?}, {} items, {} query and {} key/value heads, head dims {} and {}, \
                 blocks of {}: {choice}",
                client.name(),
                shape.items,
                shape.num_heads,
                shape.num_kv_heads,
                shape.head_dim,
                shape.value_dim,
                problem.pattern().block_size(),
            )
        });
        let words = index_words(client, &problem)?;
        Ok(Self {
            client: client.clone(),
            config: config(
                (client.name(), client.properties()),
                &problem,
                dtype,
                &choice,
            ),
            problem,
            dtype,
            choice,
            index: client.create_from_slice(i32::as_bytes(&words)),
            index_len: words.len(),
        })
    }

    /// The call.
    pub fn problem(&self) -> &Arc<CacheProblem> {
        &self.problem
    }

    /// What runs it, and why.
    pub fn choice(&self) -> &DecodeChoice {
        &self.choice
    }

    /// Bytes that it holds on the device.
    pub fn index_bytes(&self) -> usize {
        self.index_len * size_of::<i32>()
    }

    /// Launches attention of the new queries to all keys of their sequences that have pages, those of their own tokens included.
    ///
    /// `q` and `out` are `[1, num_heads, rows, width]` by their strides (head, token; the first is not used), `k_pages` and
    /// `v_pages` the contiguous pools `[pages, block, width]`, `table` the i32 words of the step, and `lse` f32
    /// `[rows, num_heads]`, contiguous. Of each item the first
    /// [`MAX_DECODE_TOKENS`](crate::cache::MAX_DECODE_TOKENS) new tokens are decoded; other rows are not written. No item is longer than
    /// the problem's `max_tokens`.
    ///
    /// # Errors
    /// A [`CubeError`] for strides or buffers that do not fit, before anything is launched, and [`CubeError::Launch`] where
    /// a kernel fails at its first launch.
    pub fn decode(
        &self,
        q: &DeviceTensor,
        k_pages: &Handle,
        v_pages: &Handle,
        table: &Handle,
        out: &DeviceTensor,
        lse: &Handle,
    ) -> Result<(), CubeError> {
        let shape = self.problem.shape();
        let lanes = match self.choice.engine {
            Engine::Unit => unit::size::LANES,
            _ => mma::LANES,
        };
        let (of_kernel, of_out) = ((lanes, self.dtype), (super::combine::LANES, self.dtype));
        let [q_sizes, out_sizes] =
            [shape.head_dim, shape.value_dim].map(|width| [1, shape.num_heads, shape.rows, width]);
        check_tensor("q", &q.handle, 0, q.strides, q_sizes, of_kernel)?;
        check_tensor("out", &out.handle, 0, out.strides, out_sizes, of_out)?;
        check_apart("out", out.strides, out_sizes)?;
        self.check_pool("k_pages", k_pages, self.problem.key_pool(), lanes)?;
        self.check_pool("v_pages", v_pages, self.problem.value_pool(), lanes)?;
        self.check_table(table)?;
        check_len("lse", lse, shape.rows * shape.num_heads, size_of::<f32>())?;
        let partials = launch::decode(self, q, k_pages, v_pages, table)?;
        self.launched("decode", Class::Attention(self.config), &partials)?;
        launch::combine(self, &partials, table, out, lse)?;
        self.launched("combine", self.combine_class(), &out.handle)
    }

    /// Launches the copy of new rows to the pages of their blocks: `rows` is `[1, num_kv_heads, rows, width]` by its strides,
    /// `pages` a pool as [`CubeDecode::decode`] takes it. Rows that no item owns, and those whose block has no page, are left
    /// out.
    ///
    /// # Errors
    /// Those of [`CubeDecode::decode`].
    pub fn write(
        &self,
        side: CacheSide,
        rows: &DeviceTensor,
        pages: &Handle,
        table: &Handle,
    ) -> Result<(), CubeError> {
        let pool = self.pool(side);
        let lanes = lanes(self.client.properties(), self.dtype);
        self.check_rows(rows, pool, lanes)?;
        self.check_pool("pages", pages, pool, lanes)?;
        self.check_table(table)?;
        launch::write(self, rows, pages, table, (pool, lanes))?;
        self.launched("cache write", Class::Copy { lanes }, pages)
    }

    /// Launches the copy of an item's keys or values to `out`, `[1, num_kv_heads, tokens, width]` by its strides: old ones from
    /// their pages, new ones from `rows`, which is as in [`CubeDecode::write`]. `tokens` is the item's `kv_len`. Tokens of blocks
    /// without a page are left as they are.
    ///
    /// # Errors
    /// Those of [`CubeDecode::decode`], and [`CubeError::Item`] where the step has no such item.
    #[allow(clippy::too_many_arguments)]
    pub fn read(
        &self,
        side: CacheSide,
        pages: &Handle,
        rows: &DeviceTensor,
        table: &Handle,
        item: usize,
        out: &DeviceTensor,
        tokens: usize,
    ) -> Result<(), CubeError> {
        let (shape, pool) = (self.problem.shape(), self.pool(side));
        if item >= shape.items {
            return Err(CubeError::Item {
                seen: item,
                accepted: shape.items,
            });
        }
        let lanes = lanes(self.client.properties(), self.dtype);
        self.check_rows(rows, pool, lanes)?;
        self.check_pool("pages", pages, pool, lanes)?;
        self.check_table(table)?;
        let sizes = [1, shape.num_kv_heads, tokens, pool.width];
        check_tensor(
            "out",
            &out.handle,
            0,
            out.strides,
            sizes,
            (lanes, self.dtype),
        )?;
        check_apart("out", out.strides, sizes)?;
        launch::read(self, pages, rows, table, item, (out, tokens), (pool, lanes))?;
        self.launched("cache read", Class::Copy { lanes }, &out.handle)
    }

    fn launched(
        &self,
        kernel: &'static str,
        class: Class,
        output: &Handle,
    ) -> Result<(), CubeError> {
        let engine = self.choice.engine;
        launched(&self.client, engine, kernel, self.dtype, class, output)
    }

    fn combine_class(&self) -> Class {
        let value_dim = self.problem.shape().value_dim;
        combine_class(value_dim, self.choice.splits, self.config.results)
    }

    fn pool(&self, side: CacheSide) -> PoolShape {
        match side {
            CacheSide::Keys => self.problem.key_pool(),
            CacheSide::Values => self.problem.value_pool(),
        }
    }

    fn check_rows(
        &self,
        rows: &DeviceTensor,
        pool: PoolShape,
        lanes: usize,
    ) -> Result<(), CubeError> {
        let shape = self.problem.shape();
        let sizes = [1, shape.num_kv_heads, shape.rows, pool.width];
        check_tensor(
            "rows",
            &rows.handle,
            0,
            rows.strides,
            sizes,
            (lanes, self.dtype),
        )
        .map(|_| ())
    }

    fn check_pool(
        &self,
        name: &'static str,
        pages: &Handle,
        pool: PoolShape,
        lanes: usize,
    ) -> Result<(), CubeError> {
        check_offset(name, pages, (lanes, self.dtype))?;
        check_len(name, pages, pool.len(), self.dtype.size())
    }

    fn check_table(&self, table: &Handle) -> Result<(), CubeError> {
        check_len(
            "table",
            table,
            self.problem.layout().len(),
            size_of::<i32>(),
        )
    }
}

/// What runs a call on a device, where it can.
fn checked(
    client: &Client,
    problem: &CacheProblem,
    dtype: ElemType,
    engine: Option<Engine>,
) -> Result<DecodeChoice, CubeError> {
    check_dtype(client, dtype)?;
    check_problem(problem)?;
    check_pools(client, problem, dtype)?;
    let device = (client.name(), client.properties());
    let choice = choose(device, problem, dtype, engine)?;
    check_needs(client, "decode", needs(problem.shape(), &choice))?;
    launch::check_grids(client, problem, dtype, &choice)?;
    Ok(choice)
}
