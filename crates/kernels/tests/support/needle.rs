//! A huge logit in one key: it moves the outputs of the queries that attend it, and no others.

use super::Tensors;
use super::compare::difference_in;
use super::golden::Golden;

/// All queries share a component that no key has. Rows of `width`.
pub fn share_component(q: &mut [f32], k: &mut [f32], width: usize) {
    for (rows, value) in [(q, 4.0), (k, 0.0)] {
        let components = rows.iter_mut().step_by(width);
        components.for_each(|component| *component = value);
    }
}

/// Makes a key one that every query agrees with, and its value one that shows.
pub fn plant(key: &mut [f32], value: &mut [f32]) {
    key[0] = 20.0 * (key.len() as f32).sqrt();
    value.fill(100.0);
}

/// Holds the output of a query that keeps the needle, or drops it.
///
/// # Errors
/// A query that keeps the needle and moves little, and one that drops it and moves at all.
pub fn hold(kept: bool, before: &[f64], after: &[f64]) -> Result<(), String> {
    if !kept {
        return match difference_in("out", before, after) {
            Some(difference) => Err(format!("dropped, but moved: {difference}")),
            None => Ok(()),
        };
    }
    let mut moves = before.iter().zip(after).map(|(b, a)| (a - b).abs());
    // NaN is no move.
    match moves.find(|moved| moved.is_nan() || *moved <= 50.0) {
        Some(moved) => Err(format!("kept, but moved by {moved} only")),
        None => Ok(()),
    }
}

/// A file of one item with a needle for all queries of a key/value head.
pub fn planted(golden: &Golden, kv_head: usize, needle: usize) -> Tensors {
    let shape = golden.shape;
    let row = kv_head * shape.seq_kv + needle;
    let mut tensors = golden.tensors.clone();
    plant(
        &mut tensors.k[row * shape.head_dim..][..shape.head_dim],
        &mut tensors.v[row * shape.value_dim..][..shape.value_dim],
    );
    tensors
}

/// Where needles are planted: the last key of every block, and the last of all.
pub fn places(golden: &Golden) -> impl Iterator<Item = usize> + use<> {
    let (seq, block) = (golden.shape.seq_kv, golden.config.block_size);
    (block - 1..seq).step_by(block).chain([seq - 1])
}

/// Holds all outputs of a file to the pattern's word. Returns how many queries dropped and kept the needle.
///
/// # Errors
/// The first query that does not do what the pattern says.
pub fn hold_all(
    golden: &Golden,
    [before, after]: [&[f64]; 2],
    kv_head: usize,
    needle: usize,
) -> Result<[usize; 2], String> {
    let (problem, shape) = (golden.problem(), golden.shape);
    let (dv, block) = (shape.value_dim, golden.config.block_size);
    let key = golden.span.kv_start + needle;
    let group = shape.num_heads / shape.num_kv_heads;
    let mut seen = [0, 0];
    for head in 0..shape.num_heads {
        let causal = problem.pattern().head(head).is_causal();
        for token in 0..shape.seq_q {
            let query = golden.span.q_start + token;
            let kept = head / group == kv_head
                && (!causal || key <= query)
                && problem.pattern().attends(head, query / block, key / block);
            let at = (head * shape.seq_q + token) * dv;
            hold(kept, &before[at..][..dv], &after[at..][..dv])
                .map_err(|miss| format!("key {key}, head {head}, query {query}: {miss}"))?;
            seen[usize::from(kept)] += 1;
        }
    }
    Ok(seen)
}
