//! Room in a table: no list is longer, and little is wasted.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use s2_attention_kernels::cache::Step;
use s2_attention_pattern::{Pattern, PatternConfig};

use crate::support::cache::causal_pattern;
use crate::{begin, tables};

/// The longest list of a step.
fn longest(step: &Step) -> usize {
    let (layout, words) = (step.layout(), step.words());
    let counts = (0..layout.items).flat_map(|item| (0..layout.kv_heads).map(move |g| (item, g)));
    counts
        .map(|(item, g)| words[layout.count(item, g)] as usize)
        .max()
        .unwrap()
}

/// The longest list of steps of one sequence up to `max_tokens`, of the lengths that `next` draws.
fn longest_of(pattern: &Pattern, max_tokens: usize, mut next: impl FnMut(usize) -> usize) -> usize {
    let mut cache = tables(pattern, max_tokens, true);
    let sequence = cache.add();
    let (mut tokens, mut most) = (0, 0);
    while tokens < max_tokens {
        let new = next(tokens).clamp(1, max_tokens - tokens);
        let step = begin(&mut cache, [(sequence, new)]);
        most = most.max(longest(&step));
        cache.commit(&step);
        tokens += new;
    }
    most
}

#[test]
fn no_list_is_longer() {
    let rng = &mut StdRng::seed_from_u64(3);
    let mut tight = 0;
    for _ in 0..300 {
        let block = [1, 1, 2, 3, 5, 8, 16, 40][rng.random_range(0..8)];
        let blocks = rng.random_range(1..=40);
        let pattern = causal_pattern(rng, block, blocks);
        let max_tokens = (blocks - 1) * block + rng.random_range(1..=block);
        let capacity = tables(&pattern, max_tokens, true).capacity();
        assert!(capacity <= blocks, "{capacity} of {blocks} blocks");
        let mut most = 0;
        for _ in 0..8 {
            let widest = [1, 16, 4 * block, max_tokens][rng.random_range(0..4)];
            let drawn = longest_of(&pattern, max_tokens, |_| rng.random_range(1..=widest));
            most = most.max(drawn);
        }
        assert!(
            most <= capacity,
            "{most} entries, room for {capacity}: {pattern:?}"
        );
        tight += usize::from(most == capacity);
    }
    println!("{tight} of 300 reached");
    assert!(tight > 100);
}

/// A table of a long sequence has room for what the law says, not for the sequence.
#[test]
fn little_is_wasted() {
    let (local, stride) = (16, 8);
    let pattern = PatternConfig::local_stride(local, stride, 64, 32)
        .with_num_kv_heads(8)
        .per_kv_head()
        .build()
        .unwrap();
    let max_tokens = 1 << 20;
    let blocks = max_tokens / 64;
    let capacity = tables(&pattern, max_tokens, true).capacity();
    let kept = local + (blocks - local) / stride;
    assert!(
        (kept..=kept + local + 3).contains(&capacity),
        "{capacity} for {kept}"
    );

    let window = PatternConfig::sliding_window(10, 64, 2).build().unwrap();
    assert!(tables(&window, max_tokens, true).capacity() <= 22);
    let dense = Pattern::dense(64, 2).unwrap();
    assert_eq!(tables(&dense, max_tokens, true).capacity(), blocks);
}

/// 16 new tokens of blocks of one token each have 16 entries beside the old ones.
#[test]
fn small_blocks_have_room_for_a_decoded_item() {
    for (block, touched) in [(1, 16), (2, 9), (3, 6), (15, 3), (16, 2), (17, 2), (64, 2)] {
        let window = PatternConfig::sliding_window(2, block, 1).build().unwrap();
        let capacity = tables(&window, 1000 * block, true).capacity();
        let most = longest_of(&window, 1000 * block, |tokens| {
            if tokens == 0 { block.max(17) - 1 } else { 16 }
        });
        // One block is kept of a window of two, where the next block begins.
        assert!(
            most <= capacity && touched < capacity,
            "block {block}: {most} of {capacity}"
        );
        assert!(capacity <= touched + 4, "block {block}: {capacity}");
    }
}
