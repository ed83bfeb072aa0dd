//! The forward pass: one query tile of one head at a time, with the online softmax.

use std::f64::consts::{LN_2, LOG2_E};

use rayon::prelude::*;

use super::chunk::{Chunk, Chunks, Operand};
use super::real::{Matrix, dot_product, product};
use super::softmax::OnlineSoftmax;
use super::tile::{QueryTile, RunBuilder};
use super::{CHUNK_KEYS, Real, Rows, RowsMut, TILE_QUERIES};
use crate::{AttentionProblem, Sequence};

/// Writes `out [b, h, s_q, dv]` and `lse` (`[b, h, s_q]`, contiguous, natural logarithm) of a call.
///
/// A query that attends nothing, and padding, get an output of 0 and an lse of `-inf`.
///
/// # Panics
/// If a view is smaller than the shapes of `problem`, or rows of `out` overlap.
pub fn forward<F: Real>(
    problem: &AttentionProblem,
    q: Rows<'_, F>,
    k: Rows<'_, F>,
    v: Rows<'_, F>,
    out: RowsMut<'_, F>,
    lse: &mut [F],
) {
    let shape = problem.shape();
    q.check("q", shape.q_sizes());
    k.check("k", shape.k_sizes());
    v.check("v", shape.v_sizes());
    out.check("out", shape.out_sizes());
    let lse = RowsMut::new(lse, [shape.num_heads * shape.seq_q, shape.seq_q, 1]);
    lse.check("lse", [shape.batch, shape.num_heads, shape.seq_q, 1]);
    let tiles = sequence_tiles(problem);
    (0..shape.num_heads * tiles.len())
        .into_par_iter()
        .for_each_init(
            || Scratch::new(problem),
            |scratch, unit| {
                let (head, (sequence, tile)) = (unit / tiles.len(), &tiles[unit % tiles.len()]);
                scratch.attend(problem, (sequence, head), tile, q, k, v);
                // SAFETY: every query of a head belongs to one tile, and every tile is visited once.
                unsafe { scratch.write((sequence, head), tile, &out, &lse) };
            },
        );
    for sequence in problem.sequences() {
        for head in 0..shape.num_heads {
            for row in sequence.q_row + sequence.span.q_len..sequence.q_row + sequence.q_rows {
                // SAFETY: the threads above are done.
                unsafe {
                    out.row_mut(sequence.item, head, row, shape.value_dim)
                        .fill(F::ZERO);
                    lse.row_mut(sequence.item, head, row, 1)[0] = F::NEG_INFINITY;
                }
            }
        }
    }
}

/// The tiles of every sequence.
fn sequence_tiles(problem: &AttentionProblem) -> Vec<(Sequence, QueryTile)> {
    let block = problem.pattern().block_size();
    let sequences = problem.sequences().iter();
    sequences
        .flat_map(|sequence| {
            QueryTile::of(&sequence.span, block)
                .into_iter()
                .map(move |tile| (*sequence, tile))
        })
        .collect()
}

/// Writes `factor * rows`, transposed, to `target`: element `c` of query `i` goes to row `c`, lane `i`.
pub(super) fn transpose<F: Real>(
    rows: &[F],
    stride: usize,
    queries: usize,
    width: usize,
    factor: F,
    target: &mut [F],
) {
    for (c, lanes) in target
        .chunks_exact_mut(TILE_QUERIES)
        .take(width)
        .enumerate()
    {
        for (i, lane) in lanes[..queries].iter_mut().enumerate() {
            *lane = rows[i * stride + c] * factor;
        }
    }
}

/// What one thread works with.
struct Scratch<F> {
    runs: RunBuilder,
    chunk: Chunk,
    /// `[d, lanes]`: the tile's queries, times scale and log2(e).
    queries: Vec<F>,
    /// `[keys, lanes]`.
    scores: Vec<F>,
    keys: Vec<F>,
    values: Vec<F>,
    /// `[lanes, dv]`: the output before its division by the softmax's sum.
    accumulator: Vec<F>,
    softmax: OnlineSoftmax<F>,
}

impl<F: Real> Scratch<F> {
    fn new(problem: &AttentionProblem) -> Self {
        let (d, dv) = (problem.shape().head_dim, problem.shape().value_dim);
        Self {
            runs: RunBuilder::default(),
            chunk: Chunk::default(),
            queries: vec![F::ZERO; d * TILE_QUERIES],
            scores: vec![F::ZERO; CHUNK_KEYS * TILE_QUERIES],
            keys: vec![F::ZERO; CHUNK_KEYS * d],
            values: vec![F::ZERO; CHUNK_KEYS * dv],
            accumulator: vec![F::ZERO; TILE_QUERIES * dv],
            softmax: OnlineSoftmax::new(),
        }
    }

    /// Leaves the tile's unnormalised output in `accumulator` and the softmax's state in `softmax`.
    fn attend(
        &mut self,
        problem: &AttentionProblem,
        (sequence, head): (&Sequence, usize),
        tile: &QueryTile,
        q: Rows<'_, F>,
        k: Rows<'_, F>,
        v: Rows<'_, F>,
    ) {
        let shape = problem.shape();
        let (d, dv) = (shape.head_dim, shape.value_dim);
        let pattern = problem.pattern();
        let (block, span) = (pattern.block_size(), &sequence.span);
        let kv_head = (sequence, head / pattern.group_size());

        self.softmax = OnlineSoftmax::new();
        self.accumulator.fill(F::ZERO);
        let rows = q.from(sequence.item, head, sequence.q_row + tile.first);
        let factor = F::from_f64(problem.scale() * LOG2_E);
        transpose(rows, q.row_stride(), tile.len, d, factor, &mut self.queries);

        let mut chunks = Chunks::new(self.runs.runs(tile, pattern.head(head), span, block));
        while chunks.next(&mut self.chunk) {
            let chunk = &self.chunk;
            let scores = &mut self.scores[..chunk.keys * TILE_QUERIES];
            let keys = Operand::gather(chunk, &k, kv_head, d, &mut self.keys);
            for &segment in &chunk.segments {
                let lane = segment.first_lane;
                dot_product(
                    [segment.len, tile.len - lane, d],
                    keys.segment(segment),
                    (&self.queries[lane..], TILE_QUERIES),
                    &mut scores[segment.row * TILE_QUERIES + lane..],
                    TILE_QUERIES,
                );
            }
            chunk.mask(scores, tile, span.kv_start, block);
            self.softmax.update(scores, tile.len);
            rescale(&mut self.accumulator, dv, &self.softmax.rescale[..tile.len]);
            let values = Operand::gather(chunk, &v, kv_head, dv, &mut self.values);
            for &segment in &chunk.segments {
                let lane = segment.first_lane;
                product(
                    [tile.len - lane, dv, segment.len],
                    Matrix::columns(&scores[segment.row * TILE_QUERIES + lane..], TILE_QUERIES),
                    values.segment(segment),
                    &mut self.accumulator[lane * dv..],
                    dv,
                    F::ONE,
                    Some(F::ONE),
                );
            }
        }
    }

    /// # Safety
    /// No other reference to the tile's rows of `out` and `lse` may be alive.
    unsafe fn write(
        &self,
        (sequence, head): (&Sequence, usize),
        tile: &QueryTile,
        out: &RowsMut<'_, F>,
        lse: &RowsMut<'_, F>,
    ) {
        let dv = self.accumulator.len() / TILE_QUERIES;
        for (lane, sums) in self.accumulator.chunks_exact(dv).take(tile.len).enumerate() {
            let (max, sum) = (self.softmax.max[lane], self.softmax.sum[lane]);
            let row = sequence.q_row + tile.first + lane;
            // SAFETY: the caller's promise.
            let (out, lse) = unsafe {
                (
                    out.row_mut(sequence.item, head, row, dv),
                    lse.row_mut(sequence.item, head, row, 1),
                )
            };
            // The sum of a row that holds NaN is NaN, whatever its maximum.
            if max == F::NEG_INFINITY && sum == F::ZERO {
                out.fill(F::ZERO);
                lse[0] = F::NEG_INFINITY;
                continue;
            }
            let factor = F::ONE / sum;
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = *sum * factor;
            }
            lse[0] = F::from_f64((max.to_f64() + sum.to_f64().log2()) * LN_2);
        }
    }
}

pub(super) fn rescale<F: Real>(accumulator: &mut [F], dv: usize, factors: &[F]) {
    for (row, &factor) in accumulator.chunks_exact_mut(dv).zip(factors) {
        if factor != F::ONE {
            for value in row {
                *value = *value * factor;
            }
        }
    }
}
