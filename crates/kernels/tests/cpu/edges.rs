//! Queries that attend nothing, a single token, and parts of K/V that hold nothing for anyone.

use rand::SeedableRng;
use rand::rngs::StdRng;
use s2_attention_kernels::{AttentionProblem, AttentionShape, SequenceSpan};
use s2_attention_pattern::{BlockMask, PatternConfig, Rule};

use crate::engine::{self, Layout};
use crate::support::compare::{self, F32};
use crate::support::{golden, oracle, random};

#[test]
fn empty_rows_give_zero_and_minus_infinity() {
    let mut empty_rows = 0;
    for stem in [
        "custom_empty_rows",
        "custom_bidirectional",
        "part_after",
        "part_before",
    ] {
        let golden = golden::named(stem);
        let (d, dv) = (golden.shape.head_dim, golden.shape.value_dim);
        let results = engine::run::<f32>(&golden.problem(), &golden.tensors, Layout::Bhsd);
        for (row, &lse) in golden.results.lse.iter().enumerate() {
            if lse == f64::NEG_INFINITY {
                assert_eq!(results.lse[row], f64::NEG_INFINITY, "{stem} row {row}");
                assert!(
                    results.out[row * dv..][..dv].iter().all(|&x| x == 0.0),
                    "{stem} row {row}"
                );
                assert!(
                    results.dq[row * d..][..d].iter().all(|&x| x == 0.0),
                    "{stem} row {row}"
                );
                empty_rows += 1;
            }
        }
    }
    // Every query of `part_after`: its keys lie after all queries.
    assert!(empty_rows >= 150 + 3 * 16, "{empty_rows}");
}

#[test]
fn keys_after_all_queries_get_no_gradient() {
    let golden = golden::named("part_after");
    let results = engine::run::<f32>(&golden.problem(), &golden.tensors, Layout::Bhsd);
    for (name, values) in results.named() {
        let nothing = if name == "lse" {
            f64::NEG_INFINITY
        } else {
            0.0
        };
        assert!(values.iter().all(|&x| x == nothing), "{name}");
    }
}

#[test]
fn a_mask_that_keeps_nothing() {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 2,
        num_kv_heads: 1,
        seq_q: 20,
        seq_kv: 30,
        head_dim: 16,
        value_dim: 8,
    };
    let mask = BlockMask::from_fn([1, 4, 4], false, |_, _, _| false).unwrap();
    let config = PatternConfig::new(Rule::Custom(mask), 8, 2).with_num_kv_heads(1);
    let problem = AttentionProblem::new(shape, &config.build().unwrap(), None, None).unwrap();
    let tensors = random::tensors(&shape, 1.5, true, &mut StdRng::seed_from_u64(1));
    let results = engine::run::<f32>(&problem, &tensors, Layout::Bhsd);
    for (name, values) in results.named() {
        let nothing = if name == "lse" {
            f64::NEG_INFINITY
        } else {
            0.0
        };
        assert!(values.iter().all(|&x| x == nothing), "{name}");
    }
}

/// One query and one key: the softmax is 1.
#[test]
fn a_single_token() {
    let shape = AttentionShape {
        batch: 1,
        num_heads: 3,
        num_kv_heads: 1,
        seq_q: 1,
        seq_kv: 1,
        head_dim: 24,
        value_dim: 40,
    };
    let config = PatternConfig::local_stride(1, 4, 16, 3).with_num_kv_heads(1);
    let tensors = random::tensors(&shape, 1.5, true, &mut StdRng::seed_from_u64(2));
    for position in [0, 15, 16, 1000] {
        let span = SequenceSpan {
            q_start: position,
            q_len: 1,
            kv_start: position,
            kv_len: 1,
        };
        let spans = Some(vec![span]);
        let pattern = config.build().unwrap();
        let problem = AttentionProblem::new(shape, &pattern, Some(0.2), spans).unwrap();
        let results = engine::run::<f32>(&problem, &tensors, Layout::Bhsd);
        compare::results(&results, &oracle(&problem, &tensors), F32).unwrap();
        for (head, &d_lse) in tensors.d_lse.iter().flatten().enumerate() {
            for (c, &v) in tensors.v.iter().enumerate() {
                assert_eq!(results.out[head * 40 + c], f64::from(v));
            }
            for (c, &k) in tensors.k.iter().enumerate() {
                let expected = 0.2 * f64::from(d_lse) * f64::from(k);
                assert!((results.dq[head * 24 + c] - expected).abs() < 1e-5);
            }
        }
        for (c, &dv) in results.dv.iter().enumerate() {
            let summed: f64 = (0..3)
                .map(|head| f64::from(tensors.d_out[head * 40 + c]))
                .sum();
            assert!((dv - summed).abs() < 1e-5);
        }
    }
}

/// Sequences without queries or without keys beside one that has both.
#[test]
fn empty_sequences_of_a_batch() {
    let shape = AttentionShape {
        batch: 4,
        num_heads: 4,
        num_kv_heads: 2,
        seq_q: 70,
        seq_kv: 90,
        head_dim: 16,
        value_dim: 16,
    };
    let span = |q_len, kv_len| SequenceSpan {
        q_start: 20,
        q_len,
        kv_start: 0,
        kv_len,
    };
    let spans = vec![span(0, 90), span(70, 90), span(70, 0), span(0, 0)];
    let config = PatternConfig::local_stride(2, 3, 16, 4).with_num_kv_heads(2);
    let problem =
        AttentionProblem::new(shape, &config.build().unwrap(), None, Some(spans)).unwrap();
    let tensors = random::tensors(&shape, 1.5, true, &mut StdRng::seed_from_u64(3));
    let results = engine::run::<f32>(&problem, &tensors, Layout::Bhsd);
    compare::results(&results, &oracle(&problem, &tensors), F32).unwrap();
}
