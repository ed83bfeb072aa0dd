//! What a GPU does not run is refused before anything is launched.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::cache::{Append, CacheError, KvCache, KvCacheConfig};
use burn_s2_attention::{PatternConfig, S2AttentionError, S2AttentionOptions, try_s2_attention};

use crate::common::layers::layer;

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

/// A step with more than kernels count is refused, and nothing has changed.
#[test]
fn steps_that_kernels_do_not_count() {
    const TOKENS: usize = 1 << 19;
    let device = crate::device();
    // Few pages, which are one buffer.
    let pattern = PatternConfig::local_stride(1, 1 << 12, 64, 32);
    let layer = layer(pattern, [128, 128]);
    let new = |max_tokens| {
        let config = KvCacheConfig::new(max_tokens);
        KvCache::try_new(vec![layer.clone()], DType::F32, &device, &config)
    };
    let mut cache = new(2 * TOKENS).unwrap();
    let sequence = cache.add();
    let before = (cache.memory_bytes(), cache.reserved_bytes());
    let append = |tokens| [Append { sequence, tokens }];
    let counted = |error: S2AttentionError| {
        let text = error.to_string();
        let part = "elements of new rows are 2147483648; the GPU kernels count up to 2147483647";
        assert!(text.contains(part), "{text}");
    };
    counted(cache.try_begin(&append(TOKENS)).unwrap_err());
    assert!(cache.step().is_none());
    assert_eq!(cache.tokens(sequence), Ok(0));
    assert_eq!((cache.memory_bytes(), cache.reserved_bytes()), before);

    // Rows behind those of the step count too. These take no memory.
    cache.begin(&append(1));
    let row = Tensor::<4>::zeros([1, 1, 1, 1], (&device, DType::F32));
    let rows: Tensor<4> = row.expand([1, TOKENS, 32, 128]);
    counted(
        cache
            .try_attend(0, rows.clone(), rows.clone(), rows)
            .unwrap_err(),
    );
    cache.abandon();

    let error = new((1 << 30) + 1).unwrap_err().to_string();
    assert!(
        error.contains("positions reach 1073741825 tokens"),
        "{error}"
    );
}

/// Pages of a layer are one buffer, and devices have buffers of some GiB: what is larger is refused before it is asked for.
#[test]
fn pages_that_no_buffer_holds() {
    const TOKENS: usize = 1 << 27;
    let device = crate::device();
    let dims = [256, 256];
    // The second layer has heads of its own; the first would take the step.
    let layers = vec![
        layer(PatternConfig::local_stride(1, 2, 64, 2), [8, 8]),
        layer(PatternConfig::dense(64, 1), dims),
    ];
    let new =
        |layers, config: &KvCacheConfig| KvCache::try_new(layers, DType::F32, &device, config);
    let config = KvCacheConfig::new(TOKENS);
    let reserved = config.clone().with_reserve(Some(1));
    let error = new(vec![layers[1].clone()], &reserved).unwrap_err();
    assert!(
        matches!(error, S2AttentionError::Device(_)) && error.to_string().contains("in one buffer"),
        "{error}"
    );

    let mut cache = new(layers, &config).unwrap();
    let sequence = cache.add();
    let before = (cache.memory_bytes(), cache.reserved_bytes());
    let append = |tokens| [Append { sequence, tokens }];
    let error = cache.try_begin(&append(TOKENS)).unwrap_err();
    assert!(
        matches!(
            error,
            S2AttentionError::Cache(CacheError::OutOfPages { .. })
        ),
        "{error}"
    );
    assert!(cache.step().is_none());
    assert_eq!((cache.memory_bytes(), cache.reserved_bytes()), before);
    cache.begin(&append(1));
    cache.abandon();
}
