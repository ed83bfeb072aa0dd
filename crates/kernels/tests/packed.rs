//! Packed documents and padding before the tokens: what is refused, and the oracle itself against separate calls.

mod support;

use s2_attention_kernels::{
    AttentionProblem, AttentionShape, LeftPadding, PackedSequences, ProblemError, SequenceSpan,
};
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};
use support::packed::{alone, packed_case, padded_case, results_of, tensors_of};
use support::random::{CLASSES, Case};
use support::{compare, oracle};

const SHAPE: AttentionShape = AttentionShape {
    batch: 1,
    num_heads: 4,
    num_kv_heads: 2,
    seq_q: 12,
    seq_kv: 20,
    head_dim: 16,
    value_dim: 8,
};

fn pattern() -> Pattern {
    let config = PatternConfig::local_stride(2, 4, 4, 4).with_num_kv_heads(2);
    config.build().unwrap()
}

fn refused(cu_seqlens_q: &[usize], cu_seqlens_kv: &[usize]) -> (ProblemError, String) {
    let error = PackedSequences::new(cu_seqlens_q, cu_seqlens_kv).unwrap_err();
    let message = error.to_string();
    (error, message)
}

#[test]
fn documents_are_refused_with_their_values() {
    for (offsets, seen) in [(&[][..], 0), (&[0][..], 1)] {
        let (error, message) = refused(offsets, &[0, 1]);
        let name = "cu_seqlens_q";
        assert_eq!(error, ProblemError::NoDocuments { name, seen });
        assert!(message.contains("at least 2"), "{message}");
    }
    let (error, message) = refused(&[0, 1], &[3, 4]);
    let name = "cu_seqlens_kv";
    assert_eq!(error, ProblemError::FirstOffset { name, seen: 3 });
    assert!(message.contains("begin at 0"), "{message}");
    let (error, message) = refused(&[0, 4, 2, 8], &[0, 4, 6, 8]);
    let expected = ProblemError::DecreasingOffsets {
        name: "cu_seqlens_q",
        document: 1,
        start: 4,
        end: 2,
    };
    assert_eq!(error, expected);
    assert!(message.contains("begins at 4 and ends at 2"), "{message}");
    let (error, message) = refused(&[0, 4], &[0, 4, 8]);
    assert_eq!(error, ProblemError::DocumentCount { q: 1, kv: 2 });
    assert!(message.contains("holds 1 documents"), "{message}");
    let (error, message) = refused(&[0, 4, 9], &[0, 4, 7]);
    let expected = ProblemError::DocumentQueries {
        document: 1,
        q_len: 5,
        kv_len: 3,
    };
    assert_eq!(error, expected);
    assert!(message.contains("at most 3"), "{message}");
    // The end of these is beyond what a `usize` holds; it is refused by the tensors.
    let endless = PackedSequences::from_lengths(&[usize::MAX, 7]).unwrap();
    let error = AttentionProblem::packed(SHAPE, &pattern(), None, &endless).unwrap_err();
    assert!(matches!(error, ProblemError::PackedTotal { .. }), "{error}");
}

#[test]
fn documents_that_do_not_fit_the_tensors_are_refused() {
    let documents = PackedSequences::new(&[0, 5, 12], &[0, 11, 21]).unwrap();
    let error = AttentionProblem::packed(SHAPE, &pattern(), None, &documents).unwrap_err();
    let expected = ProblemError::PackedTotal {
        side: "kv",
        seen: 21,
        accepted: 20,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("cu_seqlens_kv"), "{error}");
    let batch = AttentionShape { batch: 2, ..SHAPE };
    let error = AttentionProblem::packed(batch, &pattern(), None, &documents).unwrap_err();
    assert_eq!(error, ProblemError::PackedBatch { seen: 2 });

    // The table counts for each document by itself.
    let mask = BlockMask::from_fn([1, 2, 3], false, |_, _, _| true).unwrap();
    let config = PatternConfig::new(Rule::Custom(mask), 4, 4).with_num_kv_heads(2);
    let masked = config.build().unwrap();
    let packed = |q: &[usize], kv: &[usize]| {
        let documents = PackedSequences::new(q, kv).unwrap();
        AttentionProblem::packed(SHAPE, &masked, None, &documents)
    };
    assert!(packed(&[0, 8, 12], &[0, 8, 16]).is_ok());
    let expected = ProblemError::TableTooSmall {
        sequence: 1,
        name: "key",
        seen: 4,
        accepted: 3,
    };
    assert_eq!(packed(&[0, 3, 3], &[0, 3, 16]).unwrap_err(), expected);
}

#[test]
fn padding_is_refused_with_its_values() {
    let padded = |spans, padding: &[LeftPadding]| {
        AttentionProblem::padded(SHAPE, &pattern(), None, spans, padding).unwrap_err()
    };
    let expected = ProblemError::PaddingCount {
        seen: 2,
        accepted: 1,
    };
    assert_eq!(padded(None, &[LeftPadding::default(); 2]), expected);
    let expected = ProblemError::Padding {
        sequence: 0,
        side: "kv",
        seen: 21,
        accepted: 20,
    };
    assert_eq!(padded(None, &[LeftPadding { q: 12, kv: 21 }]), expected);
    let expected = ProblemError::MoreQueriesThanKeys {
        seq_q: 10,
        seq_kv: 5,
    };
    assert_eq!(padded(None, &[LeftPadding { q: 2, kv: 15 }]), expected);
    let span = SequenceSpan {
        q_start: 0,
        q_len: 11,
        kv_start: 0,
        kv_len: 20,
    };
    let expected = ProblemError::SpanLength {
        sequence: 0,
        name: "q_len",
        seen: 11,
        accepted: 10,
    };
    let seen = padded(Some(vec![span]), &[LeftPadding { q: 2, kv: 0 }]);
    assert_eq!(seen, expected);
}

/// Each row of each item belongs to one sequence.
#[test]
fn sequences_own_every_row() {
    for seed in 0..200 {
        let class = CLASSES[seed as usize % CLASSES.len()];
        let case = if seed % 2 == 0 {
            packed_case
        } else {
            padded_case
        };
        let problem = case(class, seed).problem;
        let shape = problem.shape();
        let mut owners = [
            vec![0; shape.batch * shape.seq_q],
            vec![0; shape.batch * shape.seq_kv],
        ];
        for sequence in problem.sequences() {
            let span = sequence.span;
            assert!(span.q_len <= sequence.q_rows && span.kv_len <= sequence.kv_rows);
            let sides = [
                (sequence.q_row, sequence.q_rows, shape.seq_q),
                (sequence.kv_row, sequence.kv_rows, shape.seq_kv),
            ];
            for (owners, (row, rows, seq)) in owners.iter_mut().zip(sides) {
                let first = sequence.item * seq + row;
                owners[first..first + rows]
                    .iter_mut()
                    .for_each(|owners| *owners += 1);
            }
        }
        assert!(
            owners.iter().flatten().all(|owners| *owners == 1),
            "seed {seed}"
        );
    }
}

/// The oracle gives each sequence what it gives a call of it alone, bit by bit, and nothing else to any row.
#[test]
fn sequences_are_calls_of_their_own() {
    for seed in 0..60 {
        let class = CLASSES[seed as usize % 4];
        let case = if seed % 2 == 0 {
            packed_case
        } else {
            padded_case
        };
        let Case { problem, tensors } = case(class, seed);
        let results = oracle(&problem, &tensors);
        let mut nonzero = [0; 5];
        for sequence in problem.sequences() {
            let part = results_of(&problem, sequence, &results);
            let Some(alone) = alone(&problem, sequence) else {
                assert!(part.lse.iter().all(|lse| *lse == f64::NEG_INFINITY));
                continue;
            };
            let expected = oracle(&alone, &tensors_of(&problem, sequence, &tensors));
            assert_eq!(compare::difference(&part, &expected), None, "seed {seed}");
            for (count, (_, values)) in nonzero.iter_mut().zip(part.named()) {
                *count += something(values);
            }
        }
        let all = results.named().map(|(_, values)| something(values));
        assert_eq!(all, nonzero, "seed {seed}");
    }
}

/// Elements that are neither 0 nor `-inf`.
fn something(values: &[f64]) -> usize {
    let is = |value: &&f64| **value != 0.0 && **value != f64::NEG_INFINITY;
    values.iter().filter(is).count()
}
