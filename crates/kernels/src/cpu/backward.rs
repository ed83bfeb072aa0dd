//! The backward pass: one sweep over a key/value head's tiles gives dQ, dK and dV with five products.
//!
//! The work is split by (sequence, key/value head) and, where one has a large share of the work, further into a number of
//! parts that depends on the shapes alone. Each part sums dK and dV in buffers of its own; the parts are then added in order. No
//! thread ever waits for or adds to another's rows, so the result is the same for any number of threads.

use std::f64::consts::LOG2_E;

use rayon::prelude::*;

use super::chunk::{Chunk, Chunks, Operand, Segment};
use super::forward::transpose;
use super::real::{Matrix, dot_product, product};
use super::softmax::{RowStatistics, differentiate};
use super::tile::{QueryTile, RunBuilder};
use super::{CHUNK_KEYS, Real, Rows, RowsMut, TILE_QUERIES};
use crate::{AttentionProblem, Sequence};

/// Heads are split until there are this many parts: enough for the cores of a large machine.
const PARTS: usize = 8;
/// A part has at least this many tiles, so that adding up its sums is little beside computing them.
const PART_TILES: usize = 16;

/// What the forward pass saw and left, and the gradients of its results.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a, F> {
    /// `[b, h, s_q, d]`.
    pub q: Rows<'a, F>,
    /// `[b, h_kv, s_kv, d]`.
    pub k: Rows<'a, F>,
    /// `[b, h_kv, s_kv, dv]`.
    pub v: Rows<'a, F>,
    /// `[b, h, s_q, dv]`: the forward pass's output.
    pub out: Rows<'a, F>,
    /// `[b, h, s_q]`, contiguous: the forward pass's lse.
    pub lse: &'a [F],
    /// `[b, h, s_q, dv]`: the gradient of `out`.
    pub d_out: Rows<'a, F>,
    /// `[b, h, s_q]`, contiguous: the gradient of `lse`; `None` stands for 0.
    pub d_lse: Option<&'a [F]>,
}

/// Where to write the gradients. Those that are `None` are not computed.
#[derive(Debug)]
pub struct Gradients<'a, F> {
    /// `[b, h, s_q, d]`.
    pub dq: Option<RowsMut<'a, F>>,
    /// `[b, h_kv, s_kv, d]`.
    pub dk: Option<RowsMut<'a, F>>,
    /// `[b, h_kv, s_kv, dv]`.
    pub dv: Option<RowsMut<'a, F>>,
}

/// Writes the gradients of a call; each row of them is written exactly once.
///
/// With `P = exp(S - lse)`: `dV = P^T dO`, `dS = P * (dO V^T - D)` with `D = rowsum(dO * O) - d_lse`,
/// `dQ = scale * dS K`, `dK = scale * dS^T Q` (Dao et al., arXiv 2205.14135, with the `d_lse` term).
///
/// # Panics
/// If a view is smaller than the shapes of `problem`, or rows of a gradient overlap.
pub fn backward<F: Real>(
    problem: &AttentionProblem,
    saved: Saved<'_, F>,
    gradients: Gradients<'_, F>,
) {
    let shape = problem.shape();
    check_views(problem, &saved, &gradients);
    let (pattern, sequences) = (problem.pattern(), problem.sequences());
    let (block, group) = (pattern.block_size(), pattern.group_size());
    let count = |sequence: &Sequence| QueryTile::of(&sequence.span, block).len();
    let all_tiles = sequences.iter().map(count).sum::<usize>() * shape.num_kv_heads;
    let heads = sequences.len() * shape.num_kv_heads;
    (0..heads).into_par_iter().for_each(|index| {
        let pass = HeadPass {
            problem,
            saved,
            gradients: &gradients,
            sequence: sequences[index / shape.num_kv_heads],
            kv_head: index % shape.num_kv_heads,
        };
        let tiles = QueryTile::of(&pass.sequence.span, block);
        let parts = (PARTS * tiles.len())
            .div_ceil(all_tiles.max(1))
            .min(tiles.len() * group / PART_TILES)
            .max(1);
        // Neighbouring tiles go to different parts: later rows of a causal pattern are longer.
        let mut sums: Vec<KeyValueSums<F>> = (0..parts)
            .into_par_iter()
            .map(|part| pass.sum_tiles(&tiles, (part..tiles.len() * group).step_by(parts)))
            .collect();
        let (total, rest) = sums.split_at_mut(1);
        for part in rest {
            total[0].add(part);
        }
        // SAFETY: this key/value head of the sequence belongs to this iteration alone.
        unsafe { pass.write(&total[0]) };
    });
}

fn check_views<F: Real>(
    problem: &AttentionProblem,
    saved: &Saved<'_, F>,
    gradients: &Gradients<'_, F>,
) {
    let shape = problem.shape();
    saved.q.check("q", shape.q_sizes());
    saved.k.check("k", shape.k_sizes());
    saved.v.check("v", shape.v_sizes());
    saved.out.check("out", shape.out_sizes());
    saved.d_out.check("d_out", shape.out_sizes());
    let targets = [
        ("dq", &gradients.dq, shape.q_sizes()),
        ("dk", &gradients.dk, shape.k_sizes()),
        ("dv", &gradients.dv, shape.v_sizes()),
    ];
    for (name, target, sizes) in targets {
        if let Some(target) = target {
            target.check(name, sizes);
        }
    }
}

/// dK and dV of one head, summed over the tiles of a part; empty where not wanted.
struct KeyValueSums<F> {
    dk: Vec<F>,
    dv: Vec<F>,
}

impl<F: Real> KeyValueSums<F> {
    fn add(&mut self, other: &Self) {
        let pairs = [(&mut self.dk, &other.dk), (&mut self.dv, &other.dv)];
        for (sum, part) in pairs {
            for (sum, part) in sum.iter_mut().zip(part) {
                *sum += *part;
            }
        }
    }
}

/// The backward pass of one key/value head of one sequence.
struct HeadPass<'a, F> {
    problem: &'a AttentionProblem,
    saved: Saved<'a, F>,
    gradients: &'a Gradients<'a, F>,
    sequence: Sequence,
    kv_head: usize,
}

impl<F: Real> HeadPass<'_, F> {
    /// Handles some of the head's units; unit `u` is tile `u % tiles` of the group's query head `u / tiles`.
    fn sum_tiles(
        &self,
        tiles: &[QueryTile],
        units: impl Iterator<Item = usize>,
    ) -> KeyValueSums<F> {
        let shape = self.problem.shape();
        let kv_len = self.sequence.span.kv_len;
        let buffer =
            |wanted: bool, width: usize| vec![F::ZERO; if wanted { kv_len * width } else { 0 }];
        let mut sums = KeyValueSums {
            dk: buffer(self.gradients.dk.is_some(), shape.head_dim),
            dv: buffer(self.gradients.dv.is_some(), shape.value_dim),
        };
        let mut scratch = Scratch::new(self.problem);
        let group = self.problem.pattern().group_size();
        for unit in units {
            let head = self.kv_head * group + unit / tiles.len();
            let tile = &tiles[unit % tiles.len()];
            scratch.differentiate_tile(self, head, tile, &mut sums);
            if let Some(dq) = &self.gradients.dq {
                let rows = scratch.dq.chunks_exact(shape.head_dim).take(tile.len);
                for (lane, row) in rows.enumerate() {
                    // SAFETY: each query of the group's heads belongs to one unit, and each unit to one part.
                    let target = unsafe {
                        let query = self.sequence.q_row + tile.first + lane;
                        dq.row_mut(self.sequence.item, head, query, shape.head_dim)
                    };
                    target.copy_from_slice(row);
                }
            }
        }
        sums
    }

    /// Writes the head's dK and dV, and zeros to padding.
    ///
    /// # Safety
    /// No other reference to the gradients of the sequence's head may be alive.
    unsafe fn write(&self, sums: &KeyValueSums<F>) {
        let (shape, sequence) = (self.problem.shape(), &self.sequence);
        let sides = [
            (&self.gradients.dk, &sums.dk, shape.head_dim),
            (&self.gradients.dv, &sums.dv, shape.value_dim),
        ];
        for (target, sums, width) in sides {
            let Some(target) = target else { continue };
            for token in 0..sequence.kv_rows {
                // SAFETY: the caller's promise.
                let row = unsafe {
                    target.row_mut(sequence.item, self.kv_head, sequence.kv_row + token, width)
                };
                match sums.get(token * width..(token + 1) * width) {
                    Some(sum) => row.copy_from_slice(sum),
                    None => row.fill(F::ZERO),
                }
            }
        }
        if let Some(dq) = &self.gradients.dq {
            let group = self.problem.pattern().group_size();
            for head in self.kv_head * group..(self.kv_head + 1) * group {
                for query in sequence.span.q_len..sequence.q_rows {
                    let row = sequence.q_row + query;
                    // SAFETY: the caller's promise.
                    unsafe { dq.row_mut(sequence.item, head, row, shape.head_dim) }.fill(F::ZERO);
                }
            }
        }
    }
}

/// What one part works with.
struct Scratch<F> {
    runs: RunBuilder,
    chunk: Chunk,
    statistics: RowStatistics<F>,
    /// `[lanes, d]`: the tile's queries; 0 where a query attends nothing.
    query_rows: Vec<F>,
    /// `[d, lanes]`: the same, times scale and log2(e).
    queries: Vec<F>,
    /// `[lanes, dv]`: the gradient of the tile's output; 0 where a query attends nothing.
    d_out_rows: Vec<F>,
    /// `[dv, lanes]`: the same.
    d_out: Vec<F>,
    /// `[keys, lanes]`: scores, then P.
    scores: Vec<F>,
    /// `[keys, lanes]`: dP, then dS.
    d_scores: Vec<F>,
    keys: Vec<F>,
    values: Vec<F>,
    /// `[lanes, d]`.
    dq: Vec<F>,
    /// A segment's gradient, before it is added to rows that are not neighbours.
    scattered: Vec<F>,
}

impl<F: Real> Scratch<F> {
    fn new(problem: &AttentionProblem) -> Self {
        let (d, dv) = (problem.shape().head_dim, problem.shape().value_dim);
        let buffer = |len: usize| vec![F::ZERO; len];
        Self {
            runs: RunBuilder::default(),
            chunk: Chunk::default(),
            statistics: RowStatistics {
                lse: [F::INFINITY; TILE_QUERIES],
                delta: [F::ZERO; TILE_QUERIES],
            },
            query_rows: buffer(TILE_QUERIES * d),
            queries: buffer(d * TILE_QUERIES),
            d_out_rows: buffer(TILE_QUERIES * dv),
            d_out: buffer(dv * TILE_QUERIES),
            scores: buffer(CHUNK_KEYS * TILE_QUERIES),
            d_scores: buffer(CHUNK_KEYS * TILE_QUERIES),
            keys: buffer(CHUNK_KEYS * d),
            values: buffer(CHUNK_KEYS * dv),
            dq: buffer(TILE_QUERIES * d),
            scattered: buffer(CHUNK_KEYS * d.max(dv)),
        }
    }

    /// Adds the tile's dK and dV to `sums` and leaves its dQ in `self.dq`.
    fn differentiate_tile(
        &mut self,
        pass: &HeadPass<'_, F>,
        head: usize,
        tile: &QueryTile,
        sums: &mut KeyValueSums<F>,
    ) {
        let (problem, saved) = (pass.problem, &pass.saved);
        let (d, dv) = (problem.shape().head_dim, problem.shape().value_dim);
        let pattern = problem.pattern();
        let (block, span) = (pattern.block_size(), &pass.sequence.span);
        let kv_head = (&pass.sequence, pass.kv_head);
        let scale = F::from_f64(problem.scale());

        self.prepare(pass, head, tile);
        let mut chunks = Chunks::new(self.runs.runs(tile, pattern.head(head), span, block));
        while chunks.next(&mut self.chunk) {
            let chunk = &self.chunk;
            let scores = &mut self.scores[..chunk.keys * TILE_QUERIES];
            let d_scores = &mut self.d_scores[..chunk.keys * TILE_QUERIES];
            let keys = Operand::gather(chunk, &saved.k, kv_head, d, &mut self.keys);
            let values = Operand::gather(chunk, &saved.v, kv_head, dv, &mut self.values);
            for &segment in &chunk.segments {
                let lane = segment.first_lane;
                let start = segment.row * TILE_QUERIES + lane;
                let sides = [
                    (&keys, &self.queries, d, &mut *scores),
                    (&values, &self.d_out, dv, &mut *d_scores),
                ];
                for (operand, transposed, width, target) in sides {
                    dot_product(
                        [segment.len, tile.len - lane, width],
                        operand.segment(segment),
                        (&transposed[lane..], TILE_QUERIES),
                        &mut target[start..],
                        TILE_QUERIES,
                    );
                }
            }
            chunk.mask(scores, tile, span.kv_start, block);
            differentiate(&self.statistics, scores, d_scores, tile.len);
            for &segment in &chunk.segments {
                let lane = segment.first_lane;
                let start = segment.row * TILE_QUERIES + lane;
                let (p, ds) = (&scores[start..], &d_scores[start..]);
                let scattered = &mut self.scattered;
                let sides = [
                    (
                        pass.gradients.dv.is_some(),
                        p,
                        Matrix::rows(&self.d_out_rows[lane * dv..], dv),
                        dv,
                        F::ONE,
                        &mut sums.dv,
                    ),
                    (
                        pass.gradients.dk.is_some(),
                        ds,
                        Matrix::rows(&self.query_rows[lane * d..], d),
                        d,
                        scale,
                        &mut sums.dk,
                    ),
                ];
                for (wanted, scores, rows, width, factor, sum) in sides {
                    if wanted {
                        let scores = Matrix::rows(scores, TILE_QUERIES);
                        let sizes = [segment.len, width, tile.len - lane];
                        add_to_keys(
                            chunk,
                            segment,
                            sizes,
                            (scores, rows, factor),
                            sum,
                            scattered,
                        );
                    }
                }
                if pass.gradients.dq.is_some() {
                    product(
                        [tile.len - lane, d, segment.len],
                        Matrix::columns(ds, TILE_QUERIES),
                        keys.segment(segment),
                        &mut self.dq[lane * d..],
                        d,
                        scale,
                        Some(F::ONE),
                    );
                }
            }
        }
    }

    /// Loads what the tile's queries need, and clears dQ.
    ///
    /// A query that attends nothing has no part in any gradient, whatever its row and the gradients of its results hold:
    /// its lanes are cleared, since 0 times NaN would be NaN.
    fn prepare(&mut self, pass: &HeadPass<'_, F>, head: usize, tile: &QueryTile) {
        let (problem, saved) = (pass.problem, &pass.saved);
        let shape = problem.shape();
        let (d, dv) = (shape.head_dim, shape.value_dim);
        let (item, q_row) = (pass.sequence.item, pass.sequence.q_row + tile.first);
        let first = (item * shape.num_heads + head) * shape.seq_q + q_row;
        for lane in 0..tile.len {
            let query = &mut self.query_rows[lane * d..][..d];
            let d_out = &mut self.d_out_rows[lane * dv..][..dv];
            let lse = saved.lse[first + lane];
            if lse == F::NEG_INFINITY {
                self.statistics.lse[lane] = F::INFINITY;
                self.statistics.delta[lane] = F::ZERO;
                query.fill(F::ZERO);
                d_out.fill(F::ZERO);
                continue;
            }
            let row = q_row + lane;
            query.copy_from_slice(&saved.q.from(item, head, row)[..d]);
            d_out.copy_from_slice(&saved.d_out.from(item, head, row)[..dv]);
            let out = &saved.out.from(item, head, row)[..dv];
            let dot: f64 = d_out
                .iter()
                .zip(out)
                .map(|(g, o)| g.to_f64() * o.to_f64())
                .sum();
            let d_lse = saved.d_lse.map_or(F::ZERO, |d_lse| d_lse[first + lane]);
            self.statistics.lse[lane] = F::from_f64(lse.to_f64() * LOG2_E);
            self.statistics.delta[lane] = F::from_f64(dot - d_lse.to_f64());
        }
        let factor = F::from_f64(problem.scale() * LOG2_E);
        transpose(&self.query_rows, d, tile.len, d, factor, &mut self.queries);
        transpose(&self.d_out_rows, dv, tile.len, dv, F::ONE, &mut self.d_out);
        self.dq.fill(F::ZERO);
    }
}

/// `sum[keys of the segment] += factor * scores rows`, through `scattered` where the keys are not neighbours.
fn add_to_keys<F: Real>(
    chunk: &Chunk,
    segment: Segment,
    sizes: [usize; 3],
    (scores, rows, factor): (Matrix<'_, F>, Matrix<'_, F>, F),
    sum: &mut [F],
    scattered: &mut [F],
) {
    let width = sizes[1];
    if let Some(key) = segment.key {
        let target = &mut sum[key * width..];
        product(sizes, scores, rows, target, width, factor, Some(F::ONE));
        return;
    }
    product(sizes, scores, rows, scattered, width, factor, None);
    for copy in chunk.copies_of(segment) {
        let source = &scattered[(copy.row - segment.row) * width..][..copy.len * width];
        let target = &mut sum[copy.key * width..][..copy.len * width];
        for (target, source) in target.iter_mut().zip(source) {
            *target += *source;
        }
    }
}
