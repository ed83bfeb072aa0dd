//! What is refused, with the values seen and what would be accepted; the plain forms panic with the same text.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::{
    BlockMask, Layout, Pattern, PatternConfig, ProblemError, Rule, S2AttentionError,
    S2AttentionOptions, SequenceSpan, s2_attention, s2_attention_with_lse, try_s2_attention,
    try_s2_attention_with_lse,
};

use super::run::zeros;
use crate::common::panics::panic_text;

const Q: [usize; 4] = [2, 4, 30, 16];
const K: [usize; 4] = [2, 2, 50, 16];
const V: [usize; 4] = [2, 2, 50, 8];

fn pattern() -> Pattern {
    let config = PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2);
    config.build().unwrap()
}

/// The error of all four forms.
fn refused(
    [q, k, v]: [Tensor<4>; 3],
    pattern: &Pattern,
    options: &S2AttentionOptions,
) -> S2AttentionError {
    let inputs = || (q.clone(), k.clone(), v.clone());
    let (q, k, v) = inputs();
    let error = try_s2_attention(q, k, v, pattern, options).unwrap_err();
    let (q, k, v) = inputs();
    let with_lse = try_s2_attention_with_lse(q, k, v, pattern, options).unwrap_err();
    assert_eq!(with_lse, error);
    let (q, k, v) = inputs();
    let text = panic_text(|| drop(s2_attention(q, k, v, pattern, options)));
    assert_eq!(text, error.to_string());
    let (q, k, v) = inputs();
    let text = panic_text(|| drop(s2_attention_with_lse(q, k, v, pattern, options)));
    assert_eq!(text, error.to_string());
    error
}

/// The error for tensors of these shapes.
fn refused_shapes(shapes: [[usize; 4]; 3], layout: Layout) -> S2AttentionError {
    let inputs = shapes.map(|shape| zeros(shape, DType::F32));
    let options = S2AttentionOptions::default().with_layout(layout);
    refused(inputs, &pattern(), &options)
}

/// The error for options that the tensors or the pattern cannot follow.
fn refused_options(pattern: &Pattern, options: S2AttentionOptions) -> ProblemError {
    match refused(
        [Q, K, V].map(|shape| zeros(shape, DType::F32)),
        pattern,
        &options,
    ) {
        S2AttentionError::Problem(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_not_refused() {
    let [q, k, v] = [Q, K, V].map(|shape| zeros(shape, DType::F32));
    let out = try_s2_attention(q, k, v, &pattern(), &Default::default()).unwrap();
    assert_eq!(out.dims(), [2, 4, 30, 8]);
}

#[test]
fn axes_that_disagree() {
    let cases = [
        ([Q, [3, 2, 50, 16], V], "k", "batch", 3, "q", 2),
        ([Q, K, [1, 2, 50, 8]], "v", "batch", 1, "q", 2),
        ([Q, K, [2, 4, 50, 8]], "v", "num_kv_heads", 4, "k", 2),
        ([Q, K, [2, 2, 49, 8]], "v", "seq_kv", 49, "k", 50),
        ([Q, [2, 2, 50, 24], V], "k", "head_dim", 24, "q", 16),
    ];
    for (shapes, tensor, axis, seen, other, accepted) in cases {
        let expected = S2AttentionError::AxisMismatch {
            tensor,
            axis,
            seen,
            other,
            accepted,
        };
        let swapped = shapes.map(|[batch, heads, seq, width]| [batch, seq, heads, width]);
        assert_eq!(refused_shapes(shapes, Layout::Bhsd), expected);
        assert_eq!(refused_shapes(swapped, Layout::Bshd), expected);
        let text = format!("{tensor} has {axis} = {seen}, but {other} has {accepted}");
        assert_eq!(expected.to_string(), text);
    }
}

#[test]
fn empty_axes() {
    let cases = [
        ([[0, 4, 30, 16], [0, 2, 50, 16], [0, 2, 50, 8]], "batch"),
        ([[2, 0, 30, 16], K, V], "num_heads"),
        ([[2, 4, 0, 16], K, V], "seq_q"),
        ([Q, [2, 2, 0, 16], [2, 2, 0, 8]], "seq_kv"),
        ([Q, K, [2, 2, 50, 0]], "value_dim"),
    ];
    for (shapes, axis) in cases {
        let error = refused_shapes(shapes, Layout::Bhsd);
        assert_eq!(error, ProblemError::EmptyAxis { axis }.into());
    }
}

#[test]
fn head_counts_of_another_pattern() {
    let error = refused_shapes([[2, 6, 30, 16], K, V], Layout::Bhsd);
    assert_eq!(
        error,
        ProblemError::QueryHeads {
            seen: 6,
            accepted: 4
        }
        .into()
    );
    assert!(error.to_string().contains("q has 6 heads"), "{error}");
    // Heads and tokens taken for each other.
    let error = refused_shapes([Q, K, V], Layout::Bshd);
    assert_eq!(
        error,
        S2AttentionError::Problem(ProblemError::QueryHeads {
            seen: 30,
            accepted: 4
        })
    );

    let error = refused_shapes([Q, [2, 4, 50, 16], [2, 4, 50, 8]], Layout::Bhsd);
    assert_eq!(
        error,
        ProblemError::KeyValueHeads {
            seen: 4,
            accepted: 2
        }
        .into()
    );
}

#[test]
fn dtypes_that_differ() {
    let cases = [
        ([DType::F32, DType::F16, DType::F32], "k", DType::F16, "F32"),
        (
            [DType::BF16, DType::BF16, DType::F32],
            "v",
            DType::F32,
            "BF16",
        ),
        ([DType::F64, DType::F32, DType::F64], "k", DType::F32, "F64"),
    ];
    for (dtypes, tensor, seen, accepted) in cases {
        let mut dtypes = dtypes.into_iter();
        let inputs = [Q, K, V].map(|shape| zeros(shape, dtypes.next().unwrap()));
        let error = refused(inputs, &pattern(), &Default::default());
        let accepted = format!("{accepted}, the dtype of q");
        let text = format!("{tensor} has dtype {seen:?}; accepted: {accepted}");
        assert_eq!(
            error,
            S2AttentionError::DType {
                tensor,
                seen,
                accepted
            }
        );
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn scale_and_positions() {
    let options = S2AttentionOptions::default;
    let span = SequenceSpan {
        q_start: 20,
        q_len: 30,
        kv_start: 0,
        kv_len: 50,
    };
    let placed = |second: SequenceSpan| options().with_positions(vec![span, second]);
    let pattern = pattern();
    let sequence = 1;
    let cases = [
        (
            options().with_scale(f64::INFINITY),
            ProblemError::Scale {
                seen: f64::INFINITY,
            },
        ),
        (
            options().with_positions(vec![span; 3]),
            ProblemError::SpanCount {
                seen: 3,
                accepted: 2,
            },
        ),
        (
            placed(SequenceSpan { q_len: 31, ..span }),
            ProblemError::SpanLength {
                sequence,
                name: "q_len",
                seen: 31,
                accepted: 30,
            },
        ),
        (
            placed(SequenceSpan { kv_len: 51, ..span }),
            ProblemError::SpanLength {
                sequence,
                name: "kv_len",
                seen: 51,
                accepted: 50,
            },
        ),
        (
            placed(SequenceSpan {
                q_start: usize::MAX,
                ..span
            }),
            ProblemError::SpanPosition {
                sequence,
                name: "q_start",
                seen: usize::MAX,
                accepted: i32::MAX as usize,
            },
        ),
    ];
    for (options, expected) in cases {
        assert_eq!(refused_options(&pattern, options), expected);
    }

    // Finite, but not in f32 once it is in base 2.
    let large = options().with_scale(3e38);
    assert_eq!(
        refused_options(&pattern, large.clone()),
        ProblemError::Scale { seen: 3e38 }
    );
    let [q, k, v] = [Q, K, V].map(|shape| zeros(shape, DType::F64));
    assert!(try_s2_attention(q, k, v, &pattern, &large).is_ok());

    let error = refused_shapes([[2, 4, 51, 16], K, V], Layout::Bhsd);
    assert_eq!(
        error,
        ProblemError::MoreQueriesThanKeys {
            seq_q: 51,
            seq_kv: 50
        }
        .into()
    );
    assert!(error.to_string().contains("SequenceSpan"), "{error}");

    let mask = BlockMask::from_fn([1, 4, 3], false, |_, _, _| true).unwrap();
    let masked = PatternConfig::new(Rule::Custom(mask), 16, 4).with_num_kv_heads(2);
    assert_eq!(
        refused_options(&masked.build().unwrap(), options()),
        ProblemError::TableTooSmall {
            sequence: 0,
            name: "key",
            seen: 4,
            accepted: 3
        }
    );
}

/// Only one device can be had here; these say what they would say.
#[test]
fn texts_of_device_errors() {
    let error = S2AttentionError::DeviceMismatch {
        tensor: "k",
        seen: "Cuda(1)".into(),
        other: "q",
        accepted: "Cuda(0)".into(),
    };
    assert_eq!(
        error.to_string(),
        "k is on Cuda(1), but q is on Cuda(0); move them to one device"
    );
    let error = S2AttentionError::UnsupportedDevice {
        device: "Cuda(0)".into(),
    };
    assert!(
        error.to_string().contains("no kernels for Cuda(0)"),
        "{error}"
    );
    assert!(error.to_string().contains("`flex`"), "{error}");
}
