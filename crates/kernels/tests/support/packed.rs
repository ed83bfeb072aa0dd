//! Calls of sequences that share an item of the batch: packed documents, and items with padding before the tokens.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::{
    AttentionProblem, AttentionShape, LeftPadding, PackedSequences, Sequence,
};

use super::random::{Case, Class, STD, pattern, tensors};
use super::{Results, Tensors};

/// Packed documents of random lengths: empty ones, single tokens, fewer queries than keys, queries or keys alone, and often
/// padding behind the last.
pub fn packed_case(class: Class, seed: u64) -> Case {
    let rng = &mut StdRng::seed_from_u64(seed);
    let documents = rng.random_range(1..=7);
    let lengths: Vec<[usize; 2]> = (0..documents).map(|_| lengths(rng)).collect();
    let offsets = |side: usize| -> Vec<usize> {
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length[side];
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    };
    let [q, kv] = [0, 1].map(offsets);
    let documents = PackedSequences::new(&q, &kv).unwrap();
    let longest = lengths.iter().flatten().copied().max().unwrap_or(0);
    let mut rows = |tokens: usize| match rng.random_range(0..5) {
        0..3 if tokens > 0 => tokens,
        _ => tokens + rng.random_range(1..=70),
    };
    let [seq_q, seq_kv] = [rows(documents.total_q()), rows(documents.total_kv())];
    let pattern = pattern(rng, class.block, longest.div_ceil(class.block));
    let pattern = pattern.build().unwrap();
    let shape = AttentionShape {
        batch: 1,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q,
        seq_kv,
        head_dim: class.head_dim,
        value_dim: class.value_dim,
    };
    let problem = AttentionProblem::packed(shape, &pattern, None, &documents).unwrap();
    let tensors = tensors(&shape, STD, rng.random_bool(0.6), rng);
    Case { problem, tensors }
}

/// Queries and keys of a document.
fn lengths(rng: &mut StdRng) -> [usize; 2] {
    let keys = match rng.random_range(0..8) {
        0 => 0,
        1 => 1,
        2 => rng.random_range(100..=180),
        _ => rng.random_range(2..=60),
    };
    match rng.random_range(0..8) {
        0 => [0, keys],
        1 => [rng.random_range(0..=keys), keys],
        2 if keys == 0 => [rng.random_range(1..=20), 0],
        _ => [keys, keys],
    }
}

/// A batch whose items begin with padding, of random lengths.
pub fn padded_case(class: Class, seed: u64) -> Case {
    let rng = &mut StdRng::seed_from_u64(seed);
    let seq_kv: usize = rng.random_range(1..=150);
    let seq_q = rng.random_range(1..=seq_kv);
    let batch = rng.random_range(1..=4);
    let padding: Vec<LeftPadding> = (0..batch)
        .map(|_| {
            let q = match rng.random_range(0..4) {
                0 => 0,
                1 => seq_q,
                _ => rng.random_range(0..seq_q),
            };
            // As many keys as queries at least, or none of both.
            let most = if q == seq_q {
                seq_kv
            } else {
                seq_kv - (seq_q - q)
            };
            let kv = rng.random_range(0..=most);
            LeftPadding { q, kv }
        })
        .collect();
    let pattern = pattern(rng, class.block, seq_kv.div_ceil(class.block));
    let pattern = pattern.build().unwrap();
    let shape = AttentionShape {
        batch,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q,
        seq_kv,
        head_dim: class.head_dim,
        value_dim: class.value_dim,
    };
    let problem = AttentionProblem::padded(shape, &pattern, None, None, &padding).unwrap();
    let tensors = tensors(&shape, STD, rng.random_bool(0.6), rng);
    Case { problem, tensors }
}

/// The call of one of the sequences by itself; `None` where it has no queries or no keys.
pub fn alone(problem: &AttentionProblem, sequence: &Sequence) -> Option<AttentionProblem> {
    let span = sequence.span;
    let shape = AttentionShape {
        batch: 1,
        seq_q: span.q_len,
        seq_kv: span.kv_len,
        ..*problem.shape()
    };
    let visits = span.q_len > 0 && span.kv_len > 0;
    visits.then(|| {
        let (pattern, scale) = (problem.pattern(), Some(problem.scale()));
        AttentionProblem::new(shape, pattern, scale, Some(vec![span])).unwrap()
    })
}

/// The rows of a contiguous tensor `[batch, heads, seq, width]` that are in `rows` of an item, head by head.
fn rows_of<T: Copy>(
    values: &[T],
    [item, heads, seq, width]: [usize; 4],
    rows: std::ops::Range<usize>,
) -> Vec<T> {
    let of_head = |head: usize| {
        let first = (item * heads + head) * seq;
        &values[(first + rows.start) * width..(first + rows.end) * width]
    };
    (0..heads).flat_map(of_head).copied().collect()
}

/// Where the tokens of a sequence are in tensors of queries and of keys, `width` elements a row.
struct Place<'a>(&'a AttentionProblem, &'a Sequence);

impl Place<'_> {
    fn queries<T: Copy>(&self, values: &[T], width: usize) -> Vec<T> {
        let (shape, at) = (self.0.shape(), self.1);
        let axes = [at.item, shape.num_heads, shape.seq_q, width];
        rows_of(values, axes, at.q_row..at.q_row + at.span.q_len)
    }

    fn keys<T: Copy>(&self, values: &[T], width: usize) -> Vec<T> {
        let (shape, at) = (self.0.shape(), self.1);
        let axes = [at.item, shape.num_kv_heads, shape.seq_kv, width];
        rows_of(values, axes, at.kv_row..at.kv_row + at.span.kv_len)
    }
}

/// A sequence's part of what goes into a call.
pub fn tensors_of(problem: &AttentionProblem, sequence: &Sequence, all: &Tensors) -> Tensors {
    let (d, dv) = (problem.shape().head_dim, problem.shape().value_dim);
    let place = Place(problem, sequence);
    Tensors {
        q: place.queries(&all.q, d),
        k: place.keys(&all.k, d),
        v: place.keys(&all.v, dv),
        d_out: place.queries(&all.d_out, dv),
        d_lse: all.d_lse.as_ref().map(|d_lse| place.queries(d_lse, 1)),
    }
}

/// A sequence's part of what comes out of a call.
pub fn results_of(problem: &AttentionProblem, sequence: &Sequence, all: &Results) -> Results {
    let (d, dv) = (problem.shape().head_dim, problem.shape().value_dim);
    let place = Place(problem, sequence);
    Results {
        out: place.queries(&all.out, dv),
        lse: place.queries(&all.lse, 1),
        dq: place.queries(&all.dq, d),
        dk: place.keys(&all.dk, d),
        dv: place.keys(&all.dv, dv),
    }
}

/// NaN in all tensors of the sequences that are not `kept`, and in all padding.
pub fn poison_others(
    problem: &AttentionProblem,
    tensors: &Tensors,
    kept: impl Fn(usize) -> bool,
) -> Tensors {
    let shape = problem.shape();
    let (d, dv) = (shape.head_dim, shape.value_dim);
    let nans = |len: usize| vec![f32::NAN; len];
    let mut poisoned = Tensors {
        q: nans(tensors.q.len()),
        k: nans(tensors.k.len()),
        v: nans(tensors.v.len()),
        d_out: nans(tensors.d_out.len()),
        d_lse: tensors.d_lse.as_ref().map(|d_lse| nans(d_lse.len())),
    };
    let sequences = problem.sequences().iter().enumerate();
    for (_, at) in sequences.filter(|(number, _)| kept(*number)) {
        let copy = |to: &mut [f32], from: &[f32], axes: [usize; 3], row: usize, rows: usize| {
            let [heads, seq, width] = axes;
            for head in 0..heads {
                let first = ((at.item * heads + head) * seq + row) * width;
                let range = first..first + rows * width;
                to[range.clone()].copy_from_slice(&from[range]);
            }
        };
        let queries = |to: &mut [f32], from: &[f32], width: usize| {
            let axes = [shape.num_heads, shape.seq_q, width];
            copy(to, from, axes, at.q_row, at.span.q_len);
        };
        let keys = |to: &mut [f32], from: &[f32], width: usize| {
            let axes = [shape.num_kv_heads, shape.seq_kv, width];
            copy(to, from, axes, at.kv_row, at.span.kv_len);
        };
        queries(&mut poisoned.q, &tensors.q, d);
        queries(&mut poisoned.d_out, &tensors.d_out, dv);
        keys(&mut poisoned.k, &tensors.k, d);
        keys(&mut poisoned.v, &tensors.v, dv);
        if let (Some(to), Some(from)) = (&mut poisoned.d_lse, &tensors.d_lse) {
            queries(to, from, 1);
        }
    }
    poisoned
}
