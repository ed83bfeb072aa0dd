//! Attention of a few new tokens a sequence over pages: split over the list of pages, then combined in order.
//!
//! A *tile* is up to [`TILE_QUERIES`] pairs of a query head and a new token of one item and key/value head, in the lanes of
//! the engine's score rows: they share the loads of keys and values. A list is cut into equal parts, one task each, so
//! that one long sequence keeps every core busy.

use std::f64::consts::{LN_2, LOG2_E};

use rayon::prelude::*;

use super::cache::check_pool;
use super::forward::rescale;
use super::pages::PageWalk;
use super::real::{Matrix, dot_product, product};
use super::softmax::OnlineSoftmax;
use super::table::{Item, Table};
use super::{CHUNK_KEYS, Real, Rows, RowsMut, Stored, TILE_QUERIES};
use crate::cache::CacheProblem;

/// Lists are cut so that there are about this many tasks: enough for any machine, and the same on each, so that all give
/// the same bits.
const TASKS: usize = 64;

/// Writes `out [1, h, rows, dv]`, strided, and `lse` (`[rows, h]`, contiguous, natural logarithm) of the items of a table:
/// each query attends the keys of listed blocks that the pattern keeps for it, up to its own position.
///
/// `q` is `[1, h, rows, d]`, strided, `k_pages` `[pages, block, d]` and `v_pages` `[pages, block, dv]`, contiguous. A query
/// that attends nothing gets an output of 0 and an lse of `-inf`. Rows of no item are left as they are.
///
/// # Panics
/// If a slice is smaller than the shapes of `problem`, rows of `out` overlap, or the table names what is not there.
pub fn decode<F: Real, T: Stored<F>>(
    problem: &CacheProblem,
    q: Rows<'_, F>,
    k_pages: &[T],
    v_pages: &[T],
    words: &[i32],
    out: RowsMut<'_, F>,
    lse: &mut [F],
) {
    let shape = problem.shape();
    q.check("q", [1, shape.num_heads, shape.rows, shape.head_dim]);
    out.check("out", [1, shape.num_heads, shape.rows, shape.value_dim]);
    check_pool(&problem.key_pool(), k_pages);
    check_pool(&problem.value_pool(), v_pages);
    let lse = RowsMut::new(lse, [0, 1, shape.num_heads]);
    lse.check("lse", [1, shape.num_heads, shape.rows, 1]);
    let table = Table::new(&problem.layout(), words, shape.rows, shape.pages);
    let tiles = tiles(problem, &table);
    let splits = TASKS.div_ceil(shape.items * shape.num_kv_heads);
    let pages = [k_pages, v_pages];

    let partials: Vec<Option<Partial<F>>> = (0..tiles.len() * splits)
        .into_par_iter()
        .map_init(
            || Scratch::new(problem),
            |scratch, task| {
                let (tile, split) = (&tiles[task / splits], task % splits);
                let count = table.count(tile.index, tile.kv_head);
                let step = count.div_ceil(splits);
                let part = (split * step).min(count)..((split + 1) * step).min(count);
                let walk = PageWalk::new(problem.pattern(), &table, tile, part);
                scratch.attend(problem, tile, walk, q, pages)
            },
        )
        .collect();
    let parts = partials.par_chunks(splits);
    tiles.par_iter().zip(parts).for_each(|(tile, parts)| {
        for lane in 0..tile.lanes {
            let (head, token) = tile.query(lane);
            let row = tile.item.q_row + token;
            // SAFETY: a query is in one lane of one tile, and the rows of items do not overlap: the table was checked.
            let (out, lse) = unsafe {
                (
                    out.row_mut(0, head, row, shape.value_dim),
                    lse.row_mut(0, head, row, 1),
                )
            };
            lse[0] = combine(parts, lane, out);
        }
    });
}

/// Queries of an item that read the same keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub index: usize,
    pub item: Item,
    pub kv_head: usize,
    /// The query heads of the key/value head.
    group_size: usize,
    /// The first lane, among those of all tiles of the item and key/value head.
    first: usize,
    pub lanes: usize,
}

impl Tile {
    /// The head and the new token of a lane. The tokens of a head are neighbours.
    pub(super) fn query(&self, lane: usize) -> (usize, usize) {
        let query = self.first + lane;
        let head = self.kv_head * self.group_size + query / self.item.q_len;
        (head, query % self.item.q_len)
    }
}

fn tiles(problem: &CacheProblem, table: &Table<'_>) -> Vec<Tile> {
    let group_size = problem.pattern().group_size();
    let mut tiles = Vec::new();
    for (index, item) in table.items() {
        let queries = group_size * item.q_len;
        for kv_head in 0..problem.shape().num_kv_heads {
            tiles.extend((0..queries).step_by(TILE_QUERIES).map(|first| Tile {
                index,
                item,
                kv_head,
                group_size,
                first,
                lanes: TILE_QUERIES.min(queries - first),
            }));
        }
    }
    tiles
}

/// What a tile attends in a part of its list.
struct Partial<F> {
    /// `[lanes, dv]`: the output before its division by the softmax's sum.
    accumulator: Vec<F>,
    softmax: OnlineSoftmax<F>,
}

/// Writes the output of a lane and returns its lse.
fn combine<F: Real>(parts: &[Option<Partial<F>>], lane: usize, out: &mut [F]) -> F {
    let dv = out.len();
    let parts = || parts.iter().flatten();
    let max = parts().map(|part| part.softmax.max[lane]);
    let max = max.fold(F::NEG_INFINITY, |a, b| if b > a { b } else { a });
    // A query that attends nothing has no maximum to subtract.
    let shift = if max > F::NEG_INFINITY { max } else { F::ZERO };
    let mut sum = F::ZERO;
    out.fill(F::ZERO);
    for part in parts() {
        let weight = F::from_f64((part.softmax.max[lane] - shift).to_f64().exp2());
        sum += part.softmax.sum[lane] * weight;
        let sums = &part.accumulator[lane * dv..][..dv];
        for (out, sum) in out.iter_mut().zip(sums) {
            *out += *sum * weight;
        }
    }
    // The sum of a row that holds NaN is NaN, whatever its maximum.
    if max == F::NEG_INFINITY && sum == F::ZERO {
        return F::NEG_INFINITY;
    }
    let factor = F::ONE / sum;
    for out in out {
        *out = *out * factor;
    }
    F::from_f64((max.to_f64() + sum.to_f64().log2()) * LN_2)
}

/// What one thread works with.
struct Scratch<F> {
    /// `[d, lanes]`: the tile's queries, times scale and log2(e).
    queries: Vec<F>,
    /// `[keys, lanes]`.
    scores: Vec<F>,
    keys: Vec<F>,
    values: Vec<F>,
}

impl<F: Real> Scratch<F> {
    fn new(problem: &CacheProblem) -> Self {
        let (d, dv) = (problem.shape().head_dim, problem.shape().value_dim);
        Self {
            queries: vec![F::ZERO; d * TILE_QUERIES],
            scores: vec![F::ZERO; CHUNK_KEYS * TILE_QUERIES],
            keys: vec![F::ZERO; CHUNK_KEYS * d],
            values: vec![F::ZERO; CHUNK_KEYS * dv],
        }
    }

    /// Attends the pages of a walk; `None` where there are none.
    fn attend<T: Stored<F>>(
        &mut self,
        problem: &CacheProblem,
        tile: &Tile,
        mut walk: PageWalk<'_>,
        q: Rows<'_, F>,
        [k_pages, v_pages]: [&[T]; 2],
    ) -> Option<Partial<F>> {
        let (d, dv) = (problem.shape().head_dim, problem.shape().value_dim);
        if !walk.next() {
            return None;
        }
        let factor = F::from_f64(problem.scale() * LOG2_E);
        for lane in 0..tile.lanes {
            let (head, token) = tile.query(lane);
            let query = &q.from(0, head, tile.item.q_row + token)[..d];
            for (c, element) in query.iter().enumerate() {
                self.queries[c * TILE_QUERIES + lane] = *element * factor;
            }
        }
        let mut softmax = OnlineSoftmax::new();
        let mut accumulator = vec![F::ZERO; tile.lanes * dv];
        loop {
            let keys = walk.keys();
            let scores = &mut self.scores[..keys * TILE_QUERIES];
            walk.gather(k_pages, &problem.key_pool(), &mut self.keys);
            dot_product(
                [keys, tile.lanes, d],
                Matrix::rows(&self.keys, d),
                (&self.queries, TILE_QUERIES),
                scores,
                TILE_QUERIES,
            );
            walk.mask(scores);
            softmax.update(scores, tile.lanes);
            rescale(&mut accumulator, dv, &softmax.rescale);
            walk.gather(v_pages, &problem.value_pool(), &mut self.values);
            product(
                [tile.lanes, dv, keys],
                Matrix::columns(scores, TILE_QUERIES),
                Matrix::rows(&self.values, dv),
                &mut accumulator,
                dv,
                F::ONE,
                Some(F::ONE),
            );
            if !walk.next() {
                break;
            }
        }
        Some(Partial {
            accumulator,
            softmax,
        })
    }
}
