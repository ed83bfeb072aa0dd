//! What a GPU does not run is refused before anything is launched.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::{PatternConfig, S2AttentionError, S2AttentionOptions, try_s2_attention};

fn refused(head_dim: usize, dtype: DType) -> S2AttentionError {
    let pattern = PatternConfig::local_stride(1, 2, 16, 2).build().unwrap();
    let q: Tensor<4> = Tensor::zeros([1, 2, 32, head_dim], (&crate::device(), dtype));
    try_s2_attention(
        q.clone(),
        q.clone(),
        q,
        &pattern,
        &S2AttentionOptions::default(),
    )
    .expect_err("cannot run")
}

#[test]
fn head_dims_that_no_kernel_is_made_for() {
    for head_dim in [12, 264] {
        let error = refused(head_dim, DType::F32);
        assert_eq!(
            error.to_string(),
            format!("head_dim is {head_dim}; the GPU kernels take multiples of 8 from 8 to 256")
        );
    }
}

#[test]
fn f64() {
    let text = refused(16, DType::F64).to_string();
    assert!(
        text.contains("does not compute in Float(F64); accepted: Float(F32)"),
        "{text}"
    );
}
