//! Parts that `combine` refuses.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::{Layout, S2AttentionError, combine, try_combine};

use super::run::zeros;
use crate::common::panics::panic_text;

/// The error of both forms of `combine`.
fn refused_parts(parts: Vec<(Tensor<4>, Tensor<3>)>, layout: Layout) -> S2AttentionError {
    let error = try_combine(parts.clone(), layout).unwrap_err();
    let text = panic_text(|| drop(combine(parts, layout)));
    assert_eq!(text, error.to_string());
    error
}

#[test]
fn parts_that_do_not_fit() {
    assert_eq!(
        refused_parts(vec![], Layout::Bhsd),
        S2AttentionError::NoParts
    );

    let part = |out: [usize; 4], lse: [usize; 3]| (zeros(out, DType::F32), zeros(lse, DType::F32));
    let first = || part([2, 4, 30, 8], [2, 4, 30]);
    let cases = [
        (part([2, 4, 30, 16], [2, 4, 30]), "out", "value_dim", 16, 8),
        (part([2, 3, 30, 8], [2, 3, 30]), "out", "num_heads", 3, 4),
        (part([2, 4, 30, 8], [2, 4, 29]), "lse", "seq_q", 29, 30),
        (part([2, 4, 30, 8], [1, 4, 30]), "lse", "batch", 1, 2),
    ];
    let other = "the first part's out";
    for (second, tensor, axis, seen, accepted) in cases {
        assert_eq!(
            refused_parts(vec![first(), second], Layout::Bhsd),
            S2AttentionError::AxisMismatch {
                tensor,
                axis,
                seen,
                other,
                accepted
            }
        );
    }
    // lse has the same axes in either layout.
    let swapped = part([2, 30, 4, 8], [2, 30, 4]);
    assert_eq!(
        refused_parts(vec![swapped], Layout::Bshd),
        S2AttentionError::AxisMismatch {
            tensor: "lse",
            axis: "num_heads",
            seen: 30,
            other,
            accepted: 4
        }
    );

    let half = (
        zeros([2, 4, 30, 8], DType::F16),
        zeros([2, 4, 30], DType::F32),
    );
    let error = refused_parts(vec![first(), half], Layout::Bhsd);
    let (seen, accepted) = (DType::F16, "F32".to_owned());
    assert_eq!(
        error,
        S2AttentionError::DType {
            tensor: "out",
            seen,
            accepted
        }
    );
    let half_lse = (
        zeros([2, 4, 30, 8], DType::F16),
        zeros([2, 4, 30], DType::F16),
    );
    let error = refused_parts(vec![half_lse], Layout::Bhsd);
    let accepted = "F32".to_owned();
    assert_eq!(
        error,
        S2AttentionError::DType {
            tensor: "lse",
            seen,
            accepted
        }
    );
}
