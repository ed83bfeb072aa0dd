//! What a step says: items, words, and when its lists change.

use s2_attention_kernels::cache::{Append, ITEM_WORDS, MAX_DECODE_TOKENS, SequenceId, StepKind};
use s2_attention_pattern::{Pattern, PatternConfig};

use crate::{append, begin, tables};

/// Blocks of 4 tokens, a window of 2 of them and every third before it; 2 key/value heads.
fn config() -> PatternConfig {
    PatternConfig::local_stride(2, 3, 4, 4)
        .with_num_kv_heads(2)
        .with_head_step(1)
        .per_kv_head()
}

#[test]
fn items_are_packed_in_the_order_given() {
    let mut cache = tables(&config().build().unwrap(), 100, true);
    let [a, b, c] = [(); 3].map(|()| cache.add());
    append(&mut cache, b, 30);
    let step = begin(&mut cache, [(c, 17), (b, 1), (a, MAX_DECODE_TOKENS)]);
    let items = step.items();
    assert_eq!(
        items.iter().map(|item| item.sequence).collect::<Vec<_>>(),
        [c, b, a]
    );
    assert_eq!(
        items.iter().map(|item| item.q_row).collect::<Vec<_>>(),
        [0, 17, 18]
    );
    assert_eq!(
        items.iter().map(|item| item.q_len).collect::<Vec<_>>(),
        [17, 1, 16]
    );
    assert_eq!(
        items.iter().map(|item| item.kv_len).collect::<Vec<_>>(),
        [17, 31, 16]
    );
    assert_eq!(step.rows(), 34);
    assert_eq!(step.items_of(StepKind::Prefill), [0]);
    assert_eq!(step.items_of(StepKind::Decode), [1, 2]);
    assert_eq!(step.decode_tokens(), 16);
    assert_eq!(cache.tokens(b).unwrap(), 31);
}

#[test]
fn words_name_lengths_blocks_and_pages() {
    let mut cache = tables(&config().build().unwrap(), 100, true);
    let [a, b] = [(); 2].map(|()| cache.add());
    append(&mut cache, a, 40);
    append(&mut cache, b, 22);
    let step = begin(&mut cache, [(a, 1), (b, 20)]);
    let (layout, words) = (step.layout(), step.words());
    assert_eq!(
        (layout.items, layout.kv_heads, layout.capacity),
        (2, 2, cache.capacity())
    );
    assert_eq!(words.len(), layout.len());
    assert_eq!(words[..6], [0, 1, 41, 1, 20, 42]);
    assert_eq!(step.item_words(), words[..2 * ITEM_WORDS]);
    let list = |words: &[i32], layout: s2_attention_kernels::cache::TableLayout, item, kv_head| {
        let count = words[layout.count(item, kv_head)] as usize;
        let at = (0..count).map(|nth| layout.entry(item, kv_head, nth));
        at.map(|at| (words[at], words[at + 1])).collect::<Vec<_>>()
    };
    let blocks = |item, kv_head| {
        let list = list(&words, layout, item, kv_head);
        list.into_iter().map(|(block, _)| block).collect::<Vec<_>>()
    };
    // Head 0 has the columns 0, 3, 6, ..., head 1 those before them. Queries of block 10 need block 9.
    assert_eq!(blocks(0, 0), [0, 3, 6, 9, 10]);
    assert_eq!(blocks(0, 1), [2, 5, 8, 9, 10]);
    // Queries of block 5 on need the old ones, those of block 10 the new ones; the part of block 10 is kept.
    assert_eq!(blocks(1, 0), [0, 3, 4, 5, 6, 9, 10]);
    assert_eq!(blocks(1, 1), [2, 4, 5, 8, 9, 10]);
    for (item, sequence) in [a, b].into_iter().enumerate() {
        for kv_head in 0..2 {
            let entries = cache.entries(sequence, kv_head).unwrap();
            let pairs: Vec<_> = entries
                .iter()
                .map(|entry| (entry.block as i32, entry.page as i32))
                .collect();
            assert_eq!(list(&words, layout, item, kv_head), pairs);
        }
    }
    // A table of the second item only.
    let (part, part_words) = (step.layout_of(1), step.words_of(&[1]));
    assert_eq!(part_words.len(), part.len());
    assert_eq!(part_words[..3], [1, 20, 42]);
    for kv_head in 0..2 {
        assert_eq!(
            list(&part_words, part, 0, kv_head),
            list(&words, layout, 1, kv_head)
        );
    }
    assert_eq!(step.words_of(&[0, 1]), words);
}

#[test]
fn lists_change_where_a_block_begins_or_ends_only() {
    let mut cache = tables(&config().build().unwrap(), 100, true);
    let [a, b] = [(); 2].map(|()| cache.add());
    append(&mut cache, a, 8);
    append(&mut cache, b, 9);
    let mut earlier = None;
    for new in 0..20 {
        let step = begin(&mut cache, [(a, 1), (b, 1)]);
        cache.commit(&step);
        if let Some(earlier) = &earlier {
            // A step of the first token of a block has a new entry, and one after the last token has old ones less.
            let same = (new + 8) % 4 != 0 && (new + 9) % 4 != 0;
            assert_eq!(step.same_lists(earlier), same, "token {new}");
            assert_eq!(
                step.words()[6..] == earlier.words()[6..],
                same,
                "token {new}"
            );
            assert_ne!(step.item_words(), earlier.item_words());
        }
        earlier = Some(step);
    }
    let one = begin(&mut cache, [(a, 1)]);
    assert!(
        !one.same_lists(&earlier.unwrap()),
        "another number of items"
    );
}

#[test]
fn nothing_appended_keeps_the_place() {
    let mut cache = tables(&config().build().unwrap(), 100, true);
    let [a, b, c] = [(); 3].map(|()| cache.add());
    append(&mut cache, a, 21);
    let before = cache.used_pages();
    let step = begin(&mut cache, [(a, 0), (b, 0), (c, 1)]);
    assert_eq!(step.words()[..9], [0, 0, 21, 0, 0, 0, 0, 1, 1]);
    assert_eq!(step.items_of(StepKind::Decode), [0, 1, 2]);
    assert_eq!(step.decode_tokens(), 1);
    cache.commit(&step);
    assert_eq!(cache.tokens(a).unwrap(), 21);
    assert_eq!(cache.used_pages(), before + 2);
}

/// Pages that a step frees are the first that the next one takes.
#[test]
fn pools_do_not_grow_beyond_what_is_held() {
    let window = PatternConfig::sliding_window(3, 4, 1).build().unwrap();
    let mut cache = tables(&window, 10_000, true);
    let sequence = cache.add();
    for _ in 0..10_000 {
        append(&mut cache, sequence, 1);
    }
    assert_eq!(cache.num_pages(), 3);
    cache.remove(sequence).unwrap();
    assert_eq!((cache.used_pages(), cache.num_pages()), (0, 3));
}

#[test]
fn a_step_outlives_its_sequences() {
    let mut cache = tables(&config().build().unwrap(), 100, true);
    let [a, b] = [(); 2].map(|()| cache.add());
    let step = begin(&mut cache, [(a, 30), (b, 30)]);
    assert_eq!(step.decode_tokens(), 1, "none is decoded");
    let words = step.words();
    cache.remove(a).unwrap();
    cache.reset(b).unwrap();
    assert_eq!(cache.used_pages(), 0);
    // A sequence that was reset belongs to no step: it can begin anew before the old step ends.
    let next = begin(&mut cache, [(b, 2)]);
    cache.commit(&step);
    assert_eq!(step.words(), words);
    assert_eq!((cache.tokens(b).unwrap(), cache.used_pages()), (2, 2));
    cache.commit(&next);
    cache.commit(&next);
    assert_eq!(cache.used_pages(), cache.predicted_pages(2).unwrap());
}

/// Fewer or more sequences are another table, also where those that both have did not change.
#[test]
fn tables_of_other_sequences_are_not_the_same() {
    let mut cache = tables(&Pattern::dense(8, 1).unwrap(), 100, true);
    let ids = [cache.add(), cache.add()];
    let mut step = |sequences: &[SequenceId], tokens| {
        let appends: Vec<Append> = (sequences.iter())
            .map(|&sequence| Append { sequence, tokens })
            .collect();
        let step = cache.begin(&appends).unwrap();
        cache.commit(&step);
        step
    };
    step(&ids, 1);
    let (both, one, again) = (step(&ids, 1), step(&ids[..1], 1), step(&ids, 1));
    assert!(!one.same_lists(&both) && !again.same_lists(&one));
    assert!(again.same_lists(&both));
}
