//! Every call that is refused, with the values in the message; and the defaults of those that are not.

use s2_attention_kernels::problem::MAX_POSITION;
use s2_attention_kernels::{AttentionProblem, AttentionShape, ProblemError, SequenceSpan};
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

const SHAPE: AttentionShape = AttentionShape {
    batch: 2,
    num_heads: 4,
    num_kv_heads: 2,
    seq_q: 30,
    seq_kv: 50,
    head_dim: 16,
    value_dim: 8,
};

const SPAN: SequenceSpan = SequenceSpan {
    q_start: 20,
    q_len: 30,
    kv_start: 0,
    kv_len: 50,
};

fn pattern() -> Pattern {
    let config = PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2);
    config.build().unwrap()
}

/// A mask over 4 query and 3 key blocks of 16 tokens.
fn masked() -> Pattern {
    let mask = BlockMask::from_fn([1, 4, 3], false, |_, _, _| true).unwrap();
    let config = PatternConfig::new(Rule::Custom(mask), 16, 4).with_num_kv_heads(2);
    config.build().unwrap()
}

fn spans(problem: &AttentionProblem) -> Vec<SequenceSpan> {
    let sequences = problem.sequences().iter();
    sequences.map(|sequence| sequence.span).collect()
}

fn refused(
    shape: AttentionShape,
    pattern: &Pattern,
    scale: Option<f64>,
    spans: Option<Vec<SequenceSpan>>,
) -> (ProblemError, String) {
    let error = AttentionProblem::new(shape, pattern, scale, spans).unwrap_err();
    let message = error.to_string();
    (error, message)
}

/// Refused positions of the second sequence.
fn refused_span(pattern: &Pattern, span: SequenceSpan) -> (ProblemError, String) {
    refused(SHAPE, pattern, None, Some(vec![SPAN, span]))
}

#[test]
fn defaults() {
    let problem = AttentionProblem::new(SHAPE, &pattern(), None, None).unwrap();
    assert_eq!(spans(&problem), [SPAN; 2]);
    assert_eq!(problem.scale(), 0.25);
    assert_eq!(problem.shape(), &SHAPE);
    assert_eq!(problem.pattern(), &pattern());
}

#[test]
fn given_scale_and_positions_are_kept() {
    let spans = vec![
        SPAN,
        SequenceSpan {
            q_len: 0,
            kv_start: 7,
            ..SPAN
        },
    ];
    let problem = AttentionProblem::new(SHAPE, &pattern(), Some(-0.5), Some(spans.clone()));
    let problem = problem.unwrap();
    assert_eq!(self::spans(&problem), spans);
    assert_eq!(problem.scale(), -0.5);
}

#[test]
fn an_empty_axis_is_named() {
    type Axis = fn(&mut AttentionShape) -> &mut usize;
    let axes: [(&str, Axis); 7] = [
        ("batch", |shape| &mut shape.batch),
        ("num_heads", |shape| &mut shape.num_heads),
        ("num_kv_heads", |shape| &mut shape.num_kv_heads),
        ("seq_q", |shape| &mut shape.seq_q),
        ("seq_kv", |shape| &mut shape.seq_kv),
        ("head_dim", |shape| &mut shape.head_dim),
        ("value_dim", |shape| &mut shape.value_dim),
    ];
    for (axis, of) in axes {
        let mut shape = SHAPE;
        *of(&mut shape) = 0;
        let (error, message) = refused(shape, &pattern(), None, None);
        assert_eq!(error, ProblemError::EmptyAxis { axis });
        assert!(message.starts_with(&format!("{axis} is 0")), "{message}");
    }
}

#[test]
fn head_counts_are_those_of_the_pattern() {
    let shape = AttentionShape {
        num_heads: 6,
        ..SHAPE
    };
    let (error, message) = refused(shape, &pattern(), None, None);
    assert_eq!(
        error,
        ProblemError::QueryHeads {
            seen: 6,
            accepted: 4
        }
    );
    assert!(
        message.contains("q has 6 heads") && message.contains("for 4 query heads"),
        "{message}"
    );

    let shape = AttentionShape {
        num_kv_heads: 4,
        ..SHAPE
    };
    let (error, message) = refused(shape, &pattern(), None, None);
    assert_eq!(
        error,
        ProblemError::KeyValueHeads {
            seen: 4,
            accepted: 2
        }
    );
    assert!(
        message.contains("have 4 heads") && message.contains("for 2 key/value heads"),
        "{message}"
    );
    assert!(message.contains("with_num_kv_heads"), "{message}");
}

#[test]
fn the_active_heads_are_those_of_the_call() {
    let config = PatternConfig::local_stride(2, 4, 16, 8).with_num_kv_heads(4);
    let pattern = config.with_active_heads(2..6).build().unwrap();
    assert!(AttentionProblem::new(SHAPE, &pattern, None, None).is_ok());
    let shape = AttentionShape {
        num_heads: 8,
        num_kv_heads: 4,
        ..SHAPE
    };
    let (error, _) = refused(shape, &pattern, None, None);
    assert_eq!(
        error,
        ProblemError::QueryHeads {
            seen: 8,
            accepted: 4
        }
    );
}

#[test]
fn the_scale_is_finite() {
    for seen in [f64::INFINITY, f64::NEG_INFINITY, -f64::MAX] {
        let (error, message) = refused(SHAPE, &pattern(), Some(seen), None);
        assert_eq!(error, ProblemError::Scale { seen });
        assert!(message.contains(&format!("{seen}")), "{message}");
        assert!(message.contains("1/sqrt(head_dim)"), "{message}");
    }
    let (error, message) = refused(SHAPE, &pattern(), Some(f64::NAN), None);
    assert!(matches!(error, ProblemError::Scale { seen } if seen.is_nan()));
    assert!(message.contains("NaN"), "{message}");
}

#[test]
fn default_positions_need_as_many_keys_as_queries() {
    let shape = AttentionShape { seq_q: 51, ..SHAPE };
    let (error, message) = refused(shape, &pattern(), None, None);
    assert_eq!(
        error,
        ProblemError::MoreQueriesThanKeys {
            seq_q: 51,
            seq_kv: 50
        }
    );
    assert!(
        message.contains("51") && message.contains("50"),
        "{message}"
    );
    assert!(message.contains("SequenceSpan"), "{message}");

    let given = Some(vec![SPAN; 2]);
    assert!(AttentionProblem::new(shape, &pattern(), None, given).is_ok());
}

#[test]
fn one_span_for_each_sequence() {
    for seen in [0, 1, 3] {
        let (error, message) = refused(SHAPE, &pattern(), None, Some(vec![SPAN; seen]));
        assert_eq!(error, ProblemError::SpanCount { seen, accepted: 2 });
        assert!(
            message.contains(&format!("for {seen} sequences")),
            "{message}"
        );
        assert!(message.contains("holds 2"), "{message}");
    }
}

#[test]
fn spans_fit_into_the_tensors() {
    let spans = [
        ("q_len", SequenceSpan { q_len: 31, ..SPAN }, 31, 30),
        ("kv_len", SequenceSpan { kv_len: 51, ..SPAN }, 51, 50),
    ];
    for (name, span, seen, accepted) in spans {
        let (error, message) = refused_span(&pattern(), span);
        let sequence = 1;
        assert_eq!(
            error,
            ProblemError::SpanLength {
                sequence,
                name,
                seen,
                accepted
            }
        );
        assert!(message.contains("sequence 1"), "{message}");
        assert!(message.contains(&format!("{name} = {seen}")), "{message}");
        assert!(
            message.contains(&format!("holds {accepted} tokens")),
            "{message}"
        );
    }
}

#[test]
fn positions_fit_into_32_bits() {
    for start in [MAX_POSITION - 29, usize::MAX] {
        let spans = [
            (
                "q_start",
                SequenceSpan {
                    q_start: start,
                    ..SPAN
                },
            ),
            (
                "kv_start",
                SequenceSpan {
                    kv_start: start,
                    ..SPAN
                },
            ),
        ];
        for (name, span) in spans {
            let (error, message) = refused_span(&pattern(), span);
            let (sequence, seen, accepted) = (1, start, MAX_POSITION);
            assert_eq!(
                error,
                ProblemError::SpanPosition {
                    sequence,
                    name,
                    seen,
                    accepted
                }
            );
            assert!(message.contains(&format!("{name} = {start}")), "{message}");
            assert!(message.contains("2147483647"), "{message}");
        }
    }
    let last = SequenceSpan {
        q_start: MAX_POSITION - 30,
        kv_start: MAX_POSITION - 50,
        ..SPAN
    };
    assert!(AttentionProblem::new(SHAPE, &pattern(), None, Some(vec![SPAN, last])).is_ok());
}

#[test]
fn tables_cover_the_call() {
    let fits = SequenceSpan {
        q_start: 64 - 30,
        q_len: 30,
        kv_start: 0,
        kv_len: 48,
    };
    assert!(AttentionProblem::new(SHAPE, &masked(), None, Some(vec![fits; 2])).is_ok());
    let spans = [
        (
            "query",
            SequenceSpan {
                q_start: 64 - 29,
                ..fits
            },
            5,
            4,
        ),
        ("key", SequenceSpan { kv_len: 49, ..fits }, 4, 3),
    ];
    for (name, span, seen, accepted) in spans {
        let (error, message) = refused(SHAPE, &masked(), None, Some(vec![fits, span]));
        let sequence = 1;
        assert_eq!(
            error,
            ProblemError::TableTooSmall {
                sequence,
                name,
                seen,
                accepted
            }
        );
        assert!(
            message.contains(&format!("{name} blocks reach {seen}")),
            "{message}"
        );
        assert!(message.contains(&format!("covers {accepted}")), "{message}");
    }
    // Nothing is asked of the table where there are no queries.
    let empty = SequenceSpan {
        q_start: 1000,
        q_len: 0,
        ..fits
    };
    assert!(AttentionProblem::new(SHAPE, &masked(), None, Some(vec![fits, empty])).is_ok());
}
