//! Runs of keys cut into chunks: what one round of products and softmax works on.

use super::real::Matrix;
use super::tile::{EdgeMask, KeyRun, QueryTile};
use super::{CHUNK_KEYS, Real, Rows, TILE_QUERIES};
use crate::Sequence;

/// Runs of at least this many keys are read where they are; shorter ones are first copied next to each other, since a
/// product with few rows costs more than the copy.
const DIRECT_KEYS: usize = 32;

/// Up to [`CHUNK_KEYS`] keys, as segments that a single product can read.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Number of keys, which is the number of score rows.
    pub keys: usize,
    /// The segments, in order of their score rows.
    pub segments: Vec<Segment>,
    copies: Vec<Copy>,
    edges: Vec<Edge>,
}

/// Neighbouring score rows whose keys lie at equal distances in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// First score row.
    pub row: usize,
    /// Number of keys.
    pub len: usize,
    /// Index of the first key in its sequence, or `None` if the keys were copied to the chunk's buffer.
    pub key: Option<usize>,
    /// Lanes before this one attend none of the keys, and their scores are not computed.
    pub first_lane: usize,
}

/// A short run copied to score row `row` of the chunk's buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub row: usize,
    pub len: usize,
    pub key: usize,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    row: usize,
    len: usize,
    key: usize,
    mask: EdgeMask,
}

/// Cuts runs into chunks.
pub(super) struct Chunks<'a> {
    runs: &'a [KeyRun],
    /// Keys of the first run that earlier chunks took.
    taken: usize,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(runs: &'a [KeyRun]) -> Self {
        Self { runs, taken: 0 }
    }

    /// Replaces `chunk` by the next one; false when no keys are left.
    pub(super) fn next(&mut self, chunk: &mut Chunk) -> bool {
        chunk.clear();
        while let Some(run) = self.runs.first()
            && chunk.keys < CHUNK_KEYS
        {
            let key = run.key + self.taken;
            let len = (run.len - self.taken).min(CHUNK_KEYS - chunk.keys);
            chunk.push(KeyRun { key, len, ..*run });
            self.taken += len;
            if self.taken == run.len {
                self.runs = &self.runs[1..];
                self.taken = 0;
            }
        }
        chunk.keys > 0
    }
}

impl Chunk {
    fn clear(&mut self) {
        self.keys = 0;
        self.segments.clear();
        self.copies.clear();
        self.edges.clear();
    }

    fn push(&mut self, run: KeyRun) {
        let KeyRun {
            key,
            len,
            first_lane,
            mask,
        } = run;
        let row = self.keys;
        self.keys += len;
        if let Some(mask) = mask {
            self.edges.push(Edge {
                row,
                len,
                key,
                mask,
            });
        }
        if len >= DIRECT_KEYS || first_lane > 0 {
            self.segments.push(Segment {
                row,
                len,
                key: Some(key),
                first_lane,
            });
            return;
        }
        self.copies.push(Copy { row, len, key });
        match self.segments.last_mut() {
            Some(last) if last.key.is_none() => last.len += len,
            _ => self.segments.push(Segment {
                row,
                len,
                key: None,
                first_lane,
            }),
        }
    }

    /// The short runs of a segment that was copied.
    pub(super) fn copies_of(&self, segment: Segment) -> impl Iterator<Item = Copy> + '_ {
        let rows = segment.row..segment.row + segment.len;
        self.copies
            .iter()
            .copied()
            .filter(move |copy| rows.contains(&copy.row))
    }

    /// Copies the short runs of `source` (the keys of one head, `stride` apart) into `buffer`, `width` elements a row.
    pub(super) fn gather<F: Real>(
        &self,
        source: &[F],
        stride: usize,
        width: usize,
        buffer: &mut [F],
    ) {
        for copy in &self.copies {
            for i in 0..copy.len {
                let target = &mut buffer[(copy.row + i) * width..][..width];
                target.copy_from_slice(&source[(copy.key + i) * stride..][..width]);
            }
        }
    }

    /// Hides scores that the pattern or causality hides: sets them to `-inf`.
    pub(super) fn mask<F: Real>(
        &self,
        scores: &mut [F],
        tile: &QueryTile,
        kv_start: usize,
        block: usize,
    ) {
        for edge in &self.edges {
            for i in 0..edge.len {
                let lanes = &mut scores[(edge.row + i) * TILE_QUERIES..][..tile.len];
                if edge.mask.causal {
                    let before_key = (kv_start + edge.key + i).saturating_sub(tile.position);
                    lanes[..before_key.min(tile.len)].fill(F::NEG_INFINITY);
                }
            }
            let mut nth = 0;
            while !tile.lanes(nth, block).is_empty() {
                if edge.mask.rows & (1 << nth) == 0 {
                    let hidden = tile.lanes(nth, block);
                    for i in 0..edge.len {
                        let lanes = &mut scores[(edge.row + i) * TILE_QUERIES..];
                        lanes[hidden.clone()].fill(F::NEG_INFINITY);
                    }
                }
                nth += 1;
            }
        }
    }
}

/// The keys (or values) of one head, and the buffer that short runs are copied to.
pub(super) struct Operand<'a, F> {
    source: &'a [F],
    stride: usize,
    width: usize,
    buffer: &'a [F],
}

impl<'a, F: Real> Operand<'a, F> {
    /// Gathers the chunk's short runs of a sequence's head of `rows` into `buffer`.
    pub(super) fn gather(
        chunk: &Chunk,
        rows: &Rows<'a, F>,
        (sequence, head): (&Sequence, usize),
        width: usize,
        buffer: &'a mut [F],
    ) -> Self {
        let source = rows.from(sequence.item, head, sequence.kv_row);
        let stride = rows.row_stride();
        chunk.gather(source, stride, width, buffer);
        Self {
            source,
            stride,
            width,
            buffer,
        }
    }

    /// The segment as a `[len, width]` matrix.
    pub(super) fn segment(&self, segment: Segment) -> Matrix<'a, F> {
        match segment.key {
            Some(key) => Matrix::rows(&self.source[key * self.stride..], self.stride),
            None => Matrix::rows(&self.buffer[segment.row * self.width..], self.width),
        }
    }
}
