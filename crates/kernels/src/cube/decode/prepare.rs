//! What is checked and packed of a call before its first launch.

use cubecl::client::Client;
use cubecl::ir::ElemType;

use crate::cache::CacheProblem;
use crate::cube::checks::{check_count, check_dims, max_buffer, max_index_words};
use crate::cube::columns::FAR;
use crate::cube::error::CubeError;
use crate::cube::index::{TooManyWords, push_bands, push_heads};
use crate::cube::table::{BlockGrid, push_mask, takes_tables};

pub(in crate::cube) fn check_problem(problem: &CacheProblem) -> Result<(), CubeError> {
    let shape = problem.shape();
    check_dims(shape.head_dim, shape.value_dim)?;
    problem.f32_scale().map_err(|_| CubeError::Scale {
        seen: format!("{:e}", problem.scale()),
    })?;
    let (seen, accepted) = (shape.max_tokens, FAR as usize);
    if seen > accepted {
        return Err(CubeError::Position { seen, accepted });
    }
    // Kernels count rows of the pool, words of the table and rows of all heads with 32 bits and a sign.
    let counted = [
        (
            "tokens of the pool",
            shape.pages.saturating_mul(problem.pattern().block_size()),
        ),
        ("words of the table", problem.layout().len()),
        (
            "rows of all query heads",
            shape.rows.saturating_mul(shape.num_heads),
        ),
        // Those of the cache's kernels.
        (
            "elements of new rows",
            (shape.rows.saturating_mul(shape.num_kv_heads))
                .saturating_mul(shape.head_dim.max(shape.value_dim)),
        ),
    ];
    counted
        .into_iter()
        .try_for_each(|(what, seen)| check_count(what, seen))
}

/// Kernels count the tokens of a pool with 32 bits and a sign, and a pool is one buffer.
pub(super) fn most_pages(
    client: &Client,
    dtype: ElemType,
    block_size: usize,
    width: usize,
) -> usize {
    let tokens = max_buffer(client.properties()) / (width * dtype.size()).max(1);
    (tokens.min(i32::MAX as usize) / block_size).max(1)
}

/// Whether the device has buffers as large as the pools.
pub(super) fn check_pools(
    client: &Client,
    problem: &CacheProblem,
    dtype: ElemType,
) -> Result<(), CubeError> {
    let (seen, pools) = (
        max_buffer(client.properties()),
        [problem.key_pool(), problem.value_pool()],
    );
    let bytes = pools.map(|pool| pool.len().saturating_mul(dtype.size()));
    match bytes.into_iter().find(|needed| *needed > seen) {
        Some(needed) => Err(CubeError::Resource {
            kernel: "decode",
            what: "bytes in one buffer for the pages of a layer",
            needed,
            seen,
            device: client.name().to_owned(),
        }),
        None => Ok(()),
    }
}

/// The place of each query head's row record, then the records: see [`index`](crate::cube::index).
pub(super) fn index_words(client: &Client, problem: &CacheProblem) -> Result<Vec<i32>, CubeError> {
    let (pattern, most) = (problem.pattern(), max_index_words(client));
    let mut words = vec![0; pattern.num_heads()];
    let (queries, keys) = pattern.max_blocks().unwrap_or_default();
    let blocks = BlockGrid { queries, keys };
    let pushed = push_heads(&mut words, 0, pattern, most, |words, schedule| {
        if takes_tables(pattern) {
            push_mask(words, schedule, [0; 2], blocks, most)
        } else {
            Ok(push_bands(words, schedule))
        }
    });
    match pushed {
        Ok(()) => Ok(words),
        Err(TooManyWords(seen)) => Err(CubeError::Index {
            device: client.name().to_owned(),
            seen: seen * size_of::<i32>(),
            accepted: most * size_of::<i32>(),
        }),
    }
}
