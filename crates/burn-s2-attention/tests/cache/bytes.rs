//! What a cache takes: by the rule of the pattern, at any length.

use burn::tensor::{DType, Device, Tensor};
use burn_s2_attention::cache::{
    Append, CacheError, CacheLayer, KvCache, KvCacheConfig, SequenceId,
};
use burn_s2_attention::{BlockMask, PatternConfig, Rule};

use crate::common::layers;
use crate::common::panics::panic_text;

fn layer(pattern: PatternConfig) -> CacheLayer {
    layers::layer(pattern, [16, 8])
}

fn cache(layers: Vec<CacheLayer>, config: &KvCacheConfig) -> KvCache {
    KvCache::new(layers, DType::F32, &Device::flex(), config)
}

fn append(cache: &mut KvCache, parts: &[(SequenceId, usize)]) {
    let appends: Vec<Append> = (parts.iter())
        .map(|(sequence, tokens)| Append {
            sequence: *sequence,
            tokens: *tokens,
        })
        .collect();
    cache.begin(&appends);
    // Only pages are counted: no layer attends.
    cache.commit_replayed();
}

/// Keys and values of a page of 16 tokens.
const PAGE: usize = 16 * (16 + 8) * 4;

/// The law for a pattern per KV head: `L + (N - L) / V` blocks of `N` for each KV head, here with every sum written out.
#[test]
fn memory_follows_the_law() {
    let (local, stride, heads) = (2, 4, 4);
    let pattern = PatternConfig::local_stride(local, stride, 16, heads).with_num_kv_heads(heads);
    let layers = vec![layer(pattern.clone()), layer(pattern)];
    let mut cache = cache(layers, &KvCacheConfig::new(16 * 400));
    let table = cache.predicted_bytes(0);
    let sequence = cache.add();
    assert_eq!(cache.memory_bytes(), table);
    let mut tokens = 0;
    for new in [1, 15, 1, 300, 16, 17, 1000, 3].into_iter().chain([1; 40]) {
        append(&mut cache, &[(sequence, new)]);
        tokens += new;
        // The query block of the next token, and the blocks that it and later ones attend: its own where it has begun, the
        // local ones before it, and of the older ones those with `(j + g) % stride == 0` (head step 1).
        let n = tokens / 16;
        let pages: usize = (0..heads)
            .map(|g| {
                let older = (0..(n + 1).saturating_sub(local)).filter(|j| (j + g) % stride == 0);
                usize::from(tokens % 16 > 0) + (local - 1).min(n) + older.count()
            })
            .sum();
        assert_eq!(
            cache.memory_bytes(),
            table + 2 * pages * PAGE,
            "{tokens} tokens"
        );
        assert_eq!(cache.predicted_bytes(tokens), cache.memory_bytes());
        assert_eq!(
            cache.full_bytes(tokens),
            table + 2 * heads * tokens.div_ceil(16) * PAGE
        );
        assert!(cache.reserved_bytes() >= cache.memory_bytes() - table);
    }
}

/// Any pattern, any chunks: what is in use is what was predicted.
#[test]
fn memory_is_as_predicted() {
    let layers = vec![
        layer(PatternConfig::local_stride(1, 3, 8, 4).with_num_kv_heads(2)),
        layer(PatternConfig::dense(8, 4)),
        layer(PatternConfig::sliding_window(3, 32, 2)),
        layer(PatternConfig::local_stride(1, 3, 8, 4).with_num_kv_heads(2)),
    ];
    let mut cache = cache(layers, &KvCacheConfig::new(2000));
    let (a, b) = (cache.add(), cache.add());
    let (mut of_a, mut of_b) = (0, 0);
    for (new_a, new_b) in [(100, 1), (1, 500), (16, 16), (700, 1), (1, 1), (33, 90)] {
        append(&mut cache, &[(a, new_a), (b, new_b)]);
        of_a += new_a;
        of_b += new_b;
        let predicted = cache.predicted_bytes(of_a) + cache.predicted_bytes(of_b);
        assert_eq!(cache.memory_bytes(), predicted);
        assert!(predicted < cache.full_bytes(of_a) + cache.full_bytes(of_b));
    }
    assert_eq!(
        (cache.tokens(a).unwrap(), cache.tokens(b).unwrap()),
        (of_a, of_b)
    );
    cache.remove(a);
    assert_eq!(cache.memory_bytes(), cache.predicted_bytes(of_b));
    cache.reset(b);
    assert_eq!(cache.memory_bytes(), cache.predicted_bytes(0));
    cache.remove(b);
    assert_eq!((cache.memory_bytes(), cache.num_sequences()), (0, 0));
}

/// What no sequence can have is not predicted, and what cannot be counted is not counted.
#[test]
fn lengths_beyond_the_longest() {
    let mask = BlockMask::from_fn([1, 30, 30], true, |_, i, j| i == j || j == 0).unwrap();
    let masked = layer(PatternConfig::new(Rule::Custom(mask), 16, 2));
    let cache = cache(
        vec![masked, layer(PatternConfig::dense(16, 2))],
        &KvCacheConfig::new(480),
    );
    assert!(cache.try_predicted_bytes(480).is_ok());
    for seen in [481, usize::MAX] {
        let error = cache.try_predicted_bytes(seen).unwrap_err();
        let expected = CacheError::Length {
            seen,
            accepted: 480,
        };
        assert_eq!(error, expected.into());
        assert_eq!(
            panic_text(|| cache.predicted_bytes(seen)),
            error.to_string()
        );
    }
    assert_eq!(cache.full_bytes(481) - cache.full_bytes(480), 2 * 2 * PAGE);
    assert_eq!(cache.full_bytes(usize::MAX), usize::MAX);
}

/// A longer limit costs its tables: 8 bytes for each block of a dense head, and no page.
#[test]
fn a_longer_limit_costs_tables() {
    let bytes = |max_tokens| {
        let layers = vec![layer(PatternConfig::dense(16, 8).with_num_kv_heads(2))];
        let cache = cache(layers, &KvCacheConfig::new(max_tokens));
        [cache.predicted_bytes(0), cache.predicted_bytes(100)]
    };
    let [[none, some], [of_none, of_some]] = [16_000, 32_000].map(bytes);
    assert_eq!(of_none - none, 2 * 1000 * 8);
    assert_eq!(of_some - of_none, some - none);
}

/// Without eviction, everything.
#[test]
fn a_cache_that_keeps_everything_is_full() {
    let pattern = PatternConfig::local_stride(2, 4, 16, 4);
    let config = KvCacheConfig::new(1000).with_evict(false);
    let mut cache = cache(vec![layer(pattern)], &config);
    let sequence = cache.add();
    for (new, tokens) in [(400, 400), (1, 401), (500, 901)] {
        append(&mut cache, &[(sequence, new)]);
        assert_eq!(cache.memory_bytes(), cache.full_bytes(tokens));
    }
}

/// A cache that is reserved for no sequence holds none, and says so.
#[test]
fn a_reserve_for_nothing_holds_nothing() {
    let layers = vec![layer(PatternConfig::local_stride(2, 4, 16, 4))];
    let mut cache = cache(layers, &KvCacheConfig::new(1000).with_reserve(Some(0)));
    let error = cache.try_add().unwrap_err().to_string();
    assert!(error.contains("reserved pages for 0 sequences"), "{error}");
}

/// Pools grow by leaps, or not at all where they are reserved: then any use of the sequences fits.
#[test]
fn reserved_pools_hold_what_they_are_reserved_for() {
    for evict in [true, false] {
        let layers = vec![
            layer(PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2)),
            layer(PatternConfig::dense(16, 2)),
        ];
        let config = KvCacheConfig::new(500).with_evict(evict);
        let grown = cache(layers.clone(), &config);
        let mut cache = cache(layers, &config.with_reserve(Some(2)));
        assert!(grown.reserved_bytes() < 8 * PAGE);
        let pools = cache.reserved_bytes();
        // With eviction, half of the pages or more: the dense layer has as many heads as the other.
        let full = 2 * (cache.full_bytes(500) - cache.full_bytes(0));
        assert!(pools >= if evict { full / 2 } else { full });
        let (a, b) = (cache.add(), cache.add());
        append(&mut cache, &[(a, 500), (b, 470)]);
        for _ in 0..30 {
            append(&mut cache, &[(b, 1)]);
        }
        cache.reset(a);
        for _ in 0..31 {
            append(&mut cache, &[(a, 16)]);
        }
        assert_eq!(cache.reserved_bytes(), pools);
        assert!(cache.try_add().is_err() && cache.try_fork(a).is_err());
        cache.remove(a);
        let fork = cache.fork(b);
        append(&mut cache, &[(fork, 0)]);
    }
}

/// A cache that grows keeps what is in it.
#[test]
fn growing_keeps_the_pages() {
    let layer = layer(PatternConfig::dense(16, 1));
    let mut cache = cache(vec![layer], &KvCacheConfig::new(1600));
    let sequence = cache.add();
    let device = Device::flex();
    let ones = |width| Tensor::<4>::ones([1, 16, 1, width], (&device, DType::F32));
    let mut sizes = vec![];
    for block in 0..100 {
        append_with(&mut cache, sequence, |cache| {
            // Every value is the number of its block: the mean of all is half the last.
            let out = cache.attend(0, ones(16), ones(16), ones(8) * block as f64);
            let last: f32 = out.narrow(1, 15, 1).mean().into_scalar();
            assert!((last - block as f32 / 2.0).abs() < 1e-3, "{block}: {last}");
        });
        sizes.push(cache.reserved_bytes());
    }
    sizes.dedup();
    assert!(
        sizes.len() < 25,
        "{} allocations for 100 pages",
        sizes.len()
    );
}

fn append_with(cache: &mut KvCache, sequence: SequenceId, attend: impl FnOnce(&mut KvCache)) {
    cache.begin(&[Append {
        sequence,
        tokens: 16,
    }]);
    attend(cache);
    cache.commit();
}

/// Tables and positions are allocated too: those of the largest steps, and from the start where they are reserved.
#[test]
fn tables_and_positions_are_counted() {
    let layers = vec![layer(PatternConfig::dense(16, 1))];
    let config = KvCacheConfig::new(100);
    let mut grown = cache(layers.clone(), &config);
    let table = grown.predicted_bytes(0);
    let [a, b] = [grown.add(), grown.add()];
    append(&mut grown, &[(a, 40), (b, 20)]);
    append(&mut grown, &[(a, 1)]);
    let of_pages = grown.reserved_bytes() - (2 * table + 60 * 4);
    assert_eq!(of_pages % PAGE, 0);
    assert!((5 * PAGE..7 * PAGE).contains(&of_pages));

    let reserved = cache(layers, &config.with_reserve(Some(3)));
    let expected = 3 * (reserved.full_bytes(100) + table + 100 * 4);
    assert!(reserved.reserved_bytes() >= expected);
}
