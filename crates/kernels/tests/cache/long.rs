//! Long generations: bookkeeping that grew with the square of the length would not end.

use std::time::Instant;

use s2_attention_kernels::cache::{Append, CacheError};
use s2_attention_pattern::{Pattern, PatternConfig};

use crate::{append, tables};

#[test]
fn a_generation_of_100_000_tokens_follows_the_law() {
    let (local, stride, block) = (4, 8, 16);
    let config = PatternConfig::local_stride(local, stride, block, 8)
        .with_num_kv_heads(2)
        .per_kv_head();
    let pattern = config.build().unwrap();
    let mut cache = tables(&pattern, 100_000, true);
    let sequence = cache.add();
    append(&mut cache, sequence, 20);
    let start = Instant::now();
    let (mut same, mut earlier) = (0, None);
    for tokens in 21..=100_000 {
        let step = append(&mut cache, sequence, 1);
        same += usize::from(earlier.is_some_and(|earlier| step.same_lists(&earlier)));
        earlier = Some(step);
        let blocks = (tokens - 1) / block + 1;
        // Whenever the newest block is filled in part, and whole strides are behind the window.
        if tokens % block != 0 && blocks > local && (blocks - local) % stride == 0 {
            assert_eq!(cache.used_pages(), 2 * (local + (blocks - local) / stride));
        }
    }
    println!(
        "100,000 tokens in {:?}, lists stayed {same} times",
        start.elapsed()
    );
    assert_eq!(cache.used_pages(), cache.predicted_pages(100_000).unwrap());
    assert!(cache.used_pages() * 6 < cache.full_pages(100_000));
    assert_eq!(cache.num_pages(), cache.predicted_pages(99_999).unwrap());
    // One step in 16 begins a block.
    assert!(same >= 99_979 * 14 / 16);
}

#[test]
fn a_million_tokens() {
    let tokens = 1 << 20;
    for config in [
        PatternConfig::dense(64, 32).with_num_kv_heads(8),
        PatternConfig::local_stride(16, 8, 64, 32)
            .with_num_kv_heads(8)
            .with_dense_heads(4),
    ] {
        let pattern: Pattern = config.build().unwrap();
        let start = Instant::now();
        let mut cache = tables(&pattern, tokens, true);
        let sequence = cache.add();
        append(&mut cache, sequence, tokens - 2000);
        for _ in 0..2000 {
            append(&mut cache, sequence, 1);
        }
        assert_eq!(cache.used_pages(), cache.predicted_pages(tokens).unwrap());
        let error = cache
            .begin(&[Append {
                sequence,
                tokens: 1,
            }])
            .unwrap_err();
        let expected = CacheError::TooLong {
            sequence,
            tokens,
            appended: 1,
            accepted: tokens,
        };
        assert_eq!(error, expected);
        println!(
            "{} pages in {:?}, then: {error}",
            cache.used_pages(),
            start.elapsed()
        );
    }
}
