//! Candidates that differ on any device.

use std::sync::Arc;

use cubecl::ir::{ElemType, FloatKind};
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use super::fastest;
use crate::cube::device_for_tests;
use crate::cube::mma::products::Products;
use crate::cube::trial::Trial;
use crate::cube::unit::size::SLICES;
use crate::cube::{Choice, CubeAttention, Engine};
use crate::{AttentionProblem, AttentionShape, PackedSequences};

const F32: ElemType = ElemType::Float(FloatKind::F32);

fn problem(pattern: &Pattern, batch: usize, seq: usize) -> AttentionProblem {
    let shape = AttentionShape {
        batch,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q: seq,
        seq_kv: seq,
        head_dim: 32,
        value_dim: 16,
    };
    AttentionProblem::new(shape, pattern, None, None).unwrap()
}

/// Half as many rows at a time take twice as many visits.
#[test]
fn the_faster_tile_is_chosen_and_kept() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let problem = problem(&Pattern::dense(16, 2).unwrap(), 1, 256);
    let candidate = |visited_rows| Choice {
        engine: Engine::Unit,
        inference_rows: 64,
        training_rows: 64,
        visited_rows,
        unit: SLICES,
        products: Products::Mma,
        why: "a test".to_owned(),
    };
    let candidates = [8, 32, 16].map(candidate);
    let why = "a test; the fastest of 64 x 8 sliced rows, 64 x 32 sliced rows, 64 x 16 sliced rows, by CubeCL's autotune";
    for _ in 0..2 {
        let choice = fastest(&client, &problem, F32, &candidates).unwrap();
        assert_eq!(
            (choice.tiles().as_str(), choice.why.as_str()),
            ("64 x 32 sliced rows", why)
        );
    }
    // The place of the fastest is kept: among other candidates, or in another order, it is another one.
    let others = [32, 8].map(candidate);
    for _ in 0..2 {
        let choice = fastest(&client, &problem, F32, &others).unwrap();
        assert_eq!(choice.tiles(), "64 x 32 sliced rows");
    }
    let one = fastest(&client, &problem, F32, &candidates[..1]).unwrap();
    assert_eq!(
        (one.visited_rows, one.why.as_str()),
        (8, "a test; the only tile size")
    );

    let call = CubeAttention::tuned(&client, Arc::new(problem), F32).unwrap();
    assert_eq!(call.choice().engine, Engine::Unit);
}

#[test]
fn trials_are_short_and_within_tables() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let trial = |problem: &AttentionProblem| {
        let shape = *Trial::new(&client, problem, F32).problem().shape();
        [shape.batch, shape.seq_q, shape.seq_kv]
    };
    let named = Pattern::local_stride(4, 4, 16, 4).unwrap();
    assert_eq!(trial(&problem(&named, 3, 100)), [3, 100, 100]);
    assert_eq!(trial(&problem(&named, 3, 1 << 20)), [1, 1 << 15, 1 << 15]);
    assert_eq!(trial(&problem(&named, 1000, 1000)), [32, 1000, 1000]);
    let mask = BlockMask::from_fn([1, 5, 9], false, |_, _, _| true).unwrap();
    let table = PatternConfig::new(Rule::Custom(mask), 16, 4)
        .build()
        .unwrap();
    assert_eq!(trial(&problem(&table, 2, 80)), [2, 80, 80]);
    // Documents of 700 tokens and of fewer, and padding behind them.
    let documents = PackedSequences::from_lengths(&[400, 700, 1, 0, 400]).unwrap();
    let shape = *problem(&named, 1, 5000).shape();
    let packed = AttentionProblem::packed(shape, &named, None, &documents).unwrap();
    assert_eq!(trial(&packed), [2, 700, 700]);
}
