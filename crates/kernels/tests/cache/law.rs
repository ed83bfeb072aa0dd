//! How many pages a cache holds: the formulas that are published, and the written rule of any pattern.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use crate::support::cache::causal_pattern;
use crate::{append, blocks, tables};

/// Feeds one sequence to a cache in chunks up to each number of blocks, the last block begun, and holds its pages of all
/// heads to `law(blocks)`.
fn holds(config: &PatternConfig, lengths: &[usize], law: impl Fn(usize) -> usize) {
    let pattern = config.build().unwrap();
    let block = pattern.block_size();
    let mut cache = tables(&pattern, lengths.last().unwrap() * block, true);
    let sequence = cache.add();
    for &n in lengths {
        let tokens = (n - 1) * block + 1;
        let so_far = cache.tokens(sequence).unwrap();
        append(&mut cache, sequence, tokens - so_far);
        assert_eq!(cache.used_pages(), law(n), "{n} blocks of {pattern:?}");
        assert_eq!(cache.predicted_pages(tokens).unwrap(), law(n));
        assert_eq!(cache.full_pages(tokens), n * pattern.num_kv_heads());
    }
}

/// `L + (N - L) / V` for each key/value head, where `V` divides `N - L`.
#[test]
fn a_pattern_per_kv_head() {
    for (local, stride, offset) in [(1, 2, 0), (4, 8, 0), (16, 8, 1), (3, 5, -2)] {
        let config = PatternConfig::local_stride(local, stride, 16, 8)
            .with_num_kv_heads(2)
            .with_head_offset(offset)
            .per_kv_head();
        let lengths = [1, 2, 3, 10, 37].map(|n| local + n * stride);
        holds(&config, &lengths, |n| 2 * (local + (n - local) / stride));
    }
}

/// `L + (N - L) * min(r, V) / V` for heads with the step 1 in groups of `r`.
#[test]
fn a_pattern_per_query_head() {
    for (group, stride) in [(1, 4), (2, 4), (4, 4), (8, 4), (3, 8)] {
        let config = PatternConfig::local_stride(3, stride, 8, 2 * group)
            .with_num_kv_heads(2)
            .with_head_step(1);
        let lengths = [1, 2, 9, 40].map(|n| 3 + n * stride);
        holds(&config, &lengths, |n| {
            2 * (3 + (n - 3) * group.min(stride) / stride)
        });
    }
}

/// All `N` of the key/value heads that have a dense query head.
#[test]
fn dense_heads() {
    let config = PatternConfig::local_stride(2, 4, 16, 8)
        .with_num_kv_heads(4)
        .with_head_step(1)
        .with_dense_heads(1);
    let lengths = [1, 5, 30].map(|n| 2 + n * 4);
    // The last of four heads is dense; the others have two stride columns of four each.
    holds(&config, &lengths, |n| n + 3 * (2 + (n - 2) * 2 / 4));
    holds(&PatternConfig::dense(16, 4), &[1, 2, 50], |n| 4 * n);
}

#[test]
fn windows_and_sinks() {
    holds(
        &PatternConfig::sliding_window(5, 4, 3),
        &[1, 4, 5, 6, 100],
        |n| 3 * n.min(5),
    );
    let sink = Rule::SinkWindow {
        sink_blocks: 2,
        left: 3,
        right: None,
    };
    holds(&PatternConfig::new(sink, 4, 1), &[1, 5, 6, 100], |n| {
        n.min(5)
    });
    let strided = Rule::Strided {
        vert_stride: 6,
        causal: true,
    };
    // Heads of the step 1: every sixth block, and the one that is filled.
    holds(&PatternConfig::new(strided, 4, 1), &[1, 2, 7, 8, 61], |n| {
        (n - 1).div_ceil(6) + 1
    });
}

/// Longer than any window or stride of the patterns.
const HORIZON: usize = 200;

/// What later queries attend, by the written rule: blocks before `next` of which some query block from `next` on attends
/// one. A table attends nothing beyond its end.
fn needed(pattern: &Pattern, kv_head: usize, next: usize) -> Vec<usize> {
    let attended = |j: usize| {
        let mut heads = pattern.heads().query_heads(kv_head);
        heads.any(|head| {
            let table = pattern.head(head).table();
            let end = table.map_or(HORIZON, |table| table.q_blocks());
            (next..end).any(|i| pattern.attends(head, i, j))
        })
    };
    (0..next).filter(|&j| attended(j)).collect()
}

fn holds_the_rule(pattern: &Pattern, rng: &mut StdRng) -> [usize; 2] {
    let block = pattern.block_size();
    let table = pattern.max_blocks();
    let max_tokens = table.map_or(60, |(rows, columns)| rows.min(columns)) * block;
    let [mut cache, mut full] = [true, false].map(|evict| tables(pattern, max_tokens, evict));
    let sequences = [cache.add(), full.add()];
    let (mut tokens, mut seen) = (0, [0, 0]);
    while tokens < max_tokens {
        let new = match rng.random_range(0..3) {
            0 => 1,
            1 => rng.random_range(1..=16),
            _ => rng.random_range(1..=8 * block),
        };
        let new = new.min(max_tokens - tokens);
        append(&mut cache, sequences[0], new);
        append(&mut full, sequences[1], new);
        tokens += new;
        let next = tokens / block;
        let mut pages = 0;
        for kv_head in 0..pattern.num_kv_heads() {
            let mut expected = needed(pattern, kv_head, next);
            expected.extend((!tokens.is_multiple_of(block)).then_some(next));
            assert_eq!(
                blocks(&cache, sequences[0], kv_head),
                expected,
                "{tokens} tokens of {pattern:?}"
            );
            assert_eq!(blocks(&full, sequences[1], kv_head), expected);
            pages += expected.len();
        }
        assert_eq!(cache.used_pages(), pages);
        assert_eq!(cache.predicted_pages(tokens).unwrap(), pages);
        assert_eq!(full.used_pages(), full.full_pages(tokens));
        seen[0] += pages;
        seen[1] += full.used_pages();
    }
    cache.remove(sequences[0]).unwrap();
    full.reset(sequences[1]).unwrap();
    assert_eq!((cache.used_pages(), full.used_pages()), (0, 0));
    seen
}

#[test]
fn ranges_and_custom_masks() {
    let rng = &mut StdRng::seed_from_u64(1);
    let ranges = Rule::Ranges {
        strides: vec![1, 4, 8],
        range_blocks: vec![2, 10],
    };
    for (num_heads, num_kv_heads) in [(2, 2), (6, 2)] {
        let config =
            PatternConfig::new(ranges.clone(), 4, num_heads).with_num_kv_heads(num_kv_heads);
        let [kept, all] = holds_the_rule(&config.build().unwrap(), rng);
        assert!(kept <= all);
    }
    for heads in [1, 4] {
        let kept: Vec<bool> = (0..heads * 40 * 40)
            .map(|_| rng.random_bool(0.03))
            .collect();
        let mask = BlockMask::new([heads, 40, 40], &kept, true);
        let config = PatternConfig::new(Rule::Custom(mask.unwrap()), 4, 4).with_num_kv_heads(2);
        let [kept, all] = holds_the_rule(&config.build().unwrap(), rng);
        assert!(kept < all, "{kept} of {all} pages");
    }
}

#[test]
fn any_pattern() {
    let rng = &mut StdRng::seed_from_u64(2);
    let [mut kept, mut all] = [0, 0];
    for _ in 0..150 {
        let block = rng.random_range(1..=9);
        let pattern = causal_pattern(rng, block, 40);
        let seen = holds_the_rule(&pattern, rng);
        kept += seen[0];
        all += seen[1];
    }
    println!("{kept} of {all} pages kept");
    assert!(kept * 4 < all * 3);
}
