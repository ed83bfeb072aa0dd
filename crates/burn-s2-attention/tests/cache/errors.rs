//! Caches and calls that cannot be honoured: the values seen and what would be accepted, and nothing has changed.

use burn::tensor::{DType, Device, Tensor};
use burn_s2_attention::cache::{Append, CacheError, CacheLayer, KvCache, KvCacheConfig};
use burn_s2_attention::{PatternConfig, S2AttentionError};

use crate::common::layers;
use crate::common::panics::panic_text;

fn layer(pattern: PatternConfig) -> CacheLayer {
    layers::layer(pattern, [16, 8])
}

fn pattern() -> PatternConfig {
    PatternConfig::local_stride(1, 3, 8, 4).with_num_kv_heads(2)
}

fn try_new(layers: Vec<CacheLayer>, dtype: DType, max_tokens: usize) -> Result<KvCache, String> {
    let config = KvCacheConfig::new(max_tokens);
    let cache = KvCache::try_new(layers, dtype, &Device::flex(), &config);
    cache.map_err(|error| error.to_string())
}

fn cache() -> KvCache {
    try_new(
        vec![layer(pattern()), layer(PatternConfig::dense(8, 4))],
        DType::F32,
        100,
    )
    .unwrap()
}

#[test]
fn a_cache_of_nothing_is_refused() {
    let refused = |layers: Vec<CacheLayer>, dtype, max_tokens, words: &[&str]| {
        let text = try_new(layers, dtype, max_tokens).unwrap_err();
        for word in words {
            assert!(text.contains(word), "{text}");
        }
    };
    let sparse = || vec![layer(pattern())];
    refused(vec![], DType::F32, 10, &["no layers"]);
    refused(sparse(), DType::I32, 10, &["the cache", "I32", "F32"]);
    refused(sparse(), DType::F32, 0, &["max_tokens is 0"]);
    let window = PatternConfig::new(
        burn_s2_attention::Rule::SlidingWindow {
            left: 2,
            right: Some(2),
        },
        8,
        4,
    );
    refused(vec![layer(window)], DType::F32, 10, &["after its query"]);
    let panics =
        panic_text(|| KvCache::new(vec![], DType::F32, &Device::flex(), &KvCacheConfig::new(1)));
    assert_eq!(panics, S2AttentionError::NoLayers.to_string());
}

#[test]
fn steps_follow_each_other() {
    let mut cache = cache();
    let sequence = cache.add();
    let rows = |heads, width| Tensor::<4>::zeros([1, 3, heads, width], &Device::flex());
    let attend = |cache: &mut KvCache, layer| {
        cache
            .try_attend(layer, rows(4, 16), rows(2, 16), rows(2, 8))
            .map(|out| out.dims())
    };
    assert_eq!(attend(&mut cache, 0), Err(S2AttentionError::NoStep));
    let append = [Append {
        sequence,
        tokens: 3,
    }];
    cache.begin(&append);
    assert_eq!(
        cache.try_begin(&append).unwrap_err(),
        S2AttentionError::OpenStep
    );
    assert_eq!(attend(&mut cache, 0), Ok([1, 3, 4, 8]));
    let error = attend(&mut cache, 2).unwrap_err();
    assert_eq!(
        error,
        S2AttentionError::Layer {
            seen: 2,
            accepted: 2
        }
    );
    assert!(matches!(
        cache.try_fork(sequence),
        Err(S2AttentionError::Cache(CacheError::OpenStep { .. }))
    ));
    cache.commit_replayed();
    assert_eq!(attend(&mut cache, 0), Err(S2AttentionError::NoStep));
    let panics = panic_text(|| attend_panicking(&mut cache));
    assert_eq!(panics, S2AttentionError::NoStep.to_string());
    assert_eq!(cache.tokens(sequence), Ok(3));
}

/// A layer that was left out has nothing on the step's pages: such a step is not committed, and one that cannot be carried out is
/// abandoned.
#[test]
fn a_step_needs_all_layers() {
    let mut cache = cache();
    let [sequence, other] = [cache.add(), cache.add()];
    let append = |tokens| [sequence, other].map(|sequence| Append { sequence, tokens });
    let rows = |heads, width| Tensor::<4>::zeros([1, 4, heads, width], &Device::flex());
    let attend = |cache: &mut KvCache, layer| {
        let kv_heads = [2, 4][layer];
        cache.attend(layer, rows(4, 16), rows(kv_heads, 16), rows(kv_heads, 8));
    };
    let left_out = |layer, seen| {
        Err(S2AttentionError::NotAttended {
            layer,
            seen,
            accepted: 2,
        })
    };
    assert_eq!(cache.try_commit(), Ok(()), "no step");
    for _ in 0..2 {
        cache.begin(&append(2));
        assert_eq!(cache.try_commit(), left_out(0, 0));
        attend(&mut cache, 1);
        // The same layer twice is no other layer.
        attend(&mut cache, 1);
        assert_eq!(cache.try_commit(), left_out(0, 1));
        let text = panic_text(|| cache.commit());
        for words in ["layer 0 has not", "1 of 2 layers", "`abandon`"] {
            assert!(text.contains(words), "{text}");
        }
        attend(&mut cache, 0);
        assert_eq!(cache.try_commit(), Ok(()));
        assert_eq!(cache.tokens(sequence), Ok(2));

        let third = cache.fork(other);
        let only = |sequence, tokens| Append { sequence, tokens };
        cache.begin(&[only(sequence, 4), only(other, 0), only(third, 0)]);
        attend(&mut cache, 0);
        assert_eq!(cache.try_commit(), left_out(1, 1));
        cache.remove(third);
        cache.abandon();
        assert!(cache.step().is_none());
        let tokens = [sequence, other].map(|sequence| cache.tokens(sequence));
        assert_eq!(tokens, [Ok(0), Ok(2)]);
        cache.reset(other);
        assert_eq!(cache.memory_bytes(), 2 * cache.predicted_bytes(0));
    }
}

/// A step may have no tokens, but there is no call without a row.
#[test]
fn rows_of_no_token_are_refused() {
    let mut cache = cache();
    let sequence = cache.add();
    cache.begin(&[Append {
        sequence,
        tokens: 0,
    }]);
    let rows = |heads, width| Tensor::<4>::zeros([1, 0, heads, width], &Device::flex());
    let error = cache.try_attend(0, rows(4, 16), rows(2, 16), rows(2, 8));
    let expected = CacheError::EmptyAxis { axis: "rows" };
    assert_eq!(error.unwrap_err(), expected.into());
    assert_eq!(cache.try_commit(), Ok(()));
}

#[test]
fn a_cache_of_other_layers_is_refused() {
    let cache = cache();
    let given = layer(pattern());
    assert_eq!(cache.check_layer(0, &given), Ok(()));
    let cases: [(usize, CacheLayer, &[&str]); 6] = [
        (2, given.clone(), &["layer 2 is not", "layers below 2"]),
        (1, given.clone(), &["layer 1", "pattern", "made for dense"]),
        (
            0,
            layer(pattern().with_head_offset(1)),
            &["layer 0", "pattern", "head offset 1", "made for local"],
        ),
        (
            0,
            CacheLayer {
                head_dim: 32,
                ..given.clone()
            },
            &["head_dim = 32", "made for 16"],
        ),
        (
            0,
            CacheLayer {
                value_dim: 16,
                ..given.clone()
            },
            &["value_dim = 16", "made for 8"],
        ),
        (
            0,
            CacheLayer {
                scale: Some(0.5),
                ..given.clone()
            },
            &["scale = 0.5", "made for 0.25"],
        ),
    ];
    // The default by its value.
    let same = CacheLayer {
        scale: Some(0.25),
        ..given
    };
    assert!(cache.check_layer(0, &same).is_ok());
    for (layer, given, words) in cases {
        let text = cache.check_layer(layer, &given).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{text}");
        }
    }
}

fn attend_panicking(cache: &mut KvCache) -> Tensor<4> {
    let rows = Tensor::<4>::zeros([1, 3, 4, 16], &Device::flex());
    cache.attend(0, rows.clone(), rows.clone(), rows)
}

#[test]
fn a_refused_step_changes_nothing() {
    let mut cache = cache();
    let [a, gone] = [cache.add(), cache.add()];
    cache.remove(gone);
    cache.begin(&[Append {
        sequence: a,
        tokens: 90,
    }]);
    cache.commit_replayed();
    let bytes = cache.memory_bytes();
    let append = |sequence, tokens| Append { sequence, tokens };
    let cases: [(Vec<Append>, &[&str]); 4] = [
        (vec![], &["no items"]),
        (vec![append(a, 1), append(gone, 1)], &["not in the cache"]),
        (vec![append(a, 1), append(a, 1)], &["items 0 and 1"]),
        (vec![append(a, 11)], &["90 tokens", "11 more", "100"]),
    ];
    for (appends, words) in cases {
        let text = cache.try_begin(&appends).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(panic_text(|| cache.begin(&appends)), text);
        assert_eq!((cache.tokens(a), cache.memory_bytes()), (Ok(90), bytes));
        assert!(cache.step().is_none());
    }
    cache.begin(&[append(a, 10)]);
    cache.commit_replayed();
    let unknown = CacheError::UnknownSequence { sequence: gone };
    assert_eq!(cache.try_remove(gone), Err(unknown.clone().into()));
    assert_eq!(cache.try_reset(gone), Err(unknown.clone().into()));
    assert_eq!(cache.try_fork(gone), Err(unknown.clone().into()));
    assert_eq!(cache.tokens(gone), Err(unknown.clone().into()));
    assert_eq!(panic_text(|| cache.fork(gone)), unknown.to_string());
    assert_eq!(cache.num_sequences(), 1);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let mut cache = cache();
    let sequence = cache.add();
    cache.begin(&[Append {
        sequence,
        tokens: 3,
    }]);
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, (&Device::flex(), DType::F32));
    let mut refused = |q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, words: &[&str]| {
        let text = cache.try_attend(0, q, k, v).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{text}");
        }
    };
    let (q, k, v) = (
        zeros([1, 3, 4, 16]),
        zeros([1, 3, 2, 16]),
        zeros([1, 3, 2, 8]),
    );
    let wrong = |tensor: &Tensor<4>, axis: usize| {
        let mut shape = tensor.dims();
        shape[axis] *= 2;
        zeros(shape)
    };
    refused(
        wrong(&q, 0),
        k.clone(),
        v.clone(),
        &["q has batch = 2", "has 1"],
    );
    refused(
        zeros([1, 2, 4, 16]),
        k.clone(),
        v.clone(),
        &["q has rows = 2", "the step has 3"],
    );
    refused(
        q.clone(),
        wrong(&k, 1),
        v.clone(),
        &["k has rows = 6", "q has 3"],
    );
    refused(
        q.clone(),
        k.clone(),
        zeros([1, 2, 2, 8]),
        &["v has rows = 2", "q has 3"],
    );
    refused(
        wrong(&q, 2),
        k.clone(),
        v.clone(),
        &["q has num_heads = 8", "the layer has 4"],
    );
    refused(
        q.clone(),
        wrong(&k, 2),
        v.clone(),
        &["k has num_kv_heads = 4", "the layer has 2"],
    );
    refused(
        q.clone(),
        wrong(&k, 3),
        v.clone(),
        &["k has head_dim = 32", "the layer has 16"],
    );
    refused(
        q.clone(),
        k.clone(),
        wrong(&v, 3),
        &["v has value_dim = 16", "the layer has 8"],
    );
    let f64 = q.clone().cast(DType::F64);
    refused(
        f64,
        k.clone(),
        v.clone(),
        &["q has dtype F64", "F32, the dtype of the cache"],
    );
    let f16 = v.clone().cast(DType::F16);
    refused(q.clone(), k.clone(), f16, &["v has dtype F16"]);
    assert!(cache.try_attend(0, q, k, v).is_ok());
}

#[test]
fn a_reserved_cache_says_how_much_it_has() {
    let config = KvCacheConfig::new(100).with_reserve(Some(1));
    let layers = vec![layer(pattern())];
    let mut cache = KvCache::new(layers, DType::F32, &Device::flex(), &config);
    let sequence = cache.add();
    let full = S2AttentionError::ReservedSequences { accepted: 1 };
    assert_eq!(cache.try_add(), Err(full.clone()));
    assert_eq!(cache.try_fork(sequence), Err(full.clone()));
    assert_eq!(panic_text(|| cache.add()), full.to_string());
    cache.remove(sequence);
    assert!(cache.try_add().is_ok());
}

/// Pages that are counted, and that no machine has memory for.
#[test]
fn a_reserve_beyond_memory_is_refused() {
    let config = KvCacheConfig::new(1 << 24).with_reserve(Some(64));
    let dense = PatternConfig::dense(16, 1).build().unwrap();
    let layer = CacheLayer {
        pattern: dense,
        head_dim: 1 << 14,
        value_dim: 1 << 14,
        scale: None,
    };
    let error = KvCache::try_new(vec![layer], DType::F32, &Device::flex(), &config).unwrap_err();
    // 2^30 tokens of 2^15 elements of 4 bytes.
    assert_eq!(error, S2AttentionError::Memory { seen: 1 << 47 });
}

/// More pages than can be counted are refused before any is allocated.
#[test]
fn a_reserve_that_cannot_be_had_is_refused() {
    for reserve in [1 << 31, 1 << 50, usize::MAX] {
        let config = KvCacheConfig::new(100).with_reserve(Some(reserve));
        let layers = vec![layer(pattern())];
        let error = KvCache::try_new(layers, DType::F32, &Device::flex(), &config).unwrap_err();
        assert!(
            matches!(
                error,
                S2AttentionError::Cache(CacheError::PageLimit { seen, .. }) if seen >= reserve
            ),
            "{error}"
        );
    }
}
