//! Shared prefixes: pages are counted once, and written by one.

use s2_attention_pattern::{Pattern, PatternConfig};

use crate::{append, begin, blocks, tables};

fn pattern() -> Pattern {
    PatternConfig::local_stride(2, 4, 8, 4)
        .with_num_kv_heads(2)
        .build()
        .unwrap()
}

#[test]
fn a_fork_costs_nothing_until_it_grows() {
    let mut cache = tables(&pattern(), 1000, true);
    let first = cache.add();
    append(&mut cache, first, 100);
    let used = cache.used_pages();
    let forks: Vec<_> = (0..50).map(|_| cache.fork(first).unwrap()).collect();
    assert_eq!(cache.used_pages(), used);
    for &fork in &forks {
        assert_eq!(cache.tokens(fork).unwrap(), 100);
        assert_eq!(
            cache.entries(fork, 0).unwrap(),
            cache.entries(first, 0).unwrap()
        );
    }
    cache.remove(first).unwrap();
    assert_eq!(cache.used_pages(), used);
    for fork in forks {
        cache.remove(fork).unwrap();
    }
    assert_eq!(cache.used_pages(), 0);
}

/// 100 tokens fill half of block 12: its page is copied by all that write to it but the last.
#[test]
fn a_shared_part_of_a_block_is_copied_before_it_is_written() {
    let mut cache = tables(&pattern(), 1000, true);
    let first = cache.add();
    append(&mut cache, first, 100);
    let (second, third) = (cache.fork(first).unwrap(), cache.fork(first).unwrap());
    let page = |cache: &s2_attention_kernels::cache::BlockTables, sequence, kv_head| {
        cache
            .entries(sequence, kv_head)
            .unwrap()
            .last()
            .unwrap()
            .page as usize
    };
    let shared = [0, 1].map(|kv_head| page(&cache, first, kv_head));
    let used = cache.used_pages();
    let step = begin(&mut cache, [(second, 1), (first, 20)]);
    let copied =
        |sequence| [0, 1].map(|kv_head| (shared[kv_head], page(&cache, sequence, kv_head)));
    assert_eq!(step.copies()[..2], copied(second));
    let of_first = [0, 1].map(|kv_head| {
        let entries = cache.entries(first, kv_head).unwrap();
        let entry = entries.iter().find(|entry| entry.block == 12).unwrap();
        (shared[kv_head], entry.page as usize)
    });
    assert_eq!(step.copies()[2..], of_first);
    let froms: Vec<usize> = step.copies().iter().map(|copy| copy.0).collect();
    assert!(step.copies().iter().all(|copy| !froms.contains(&copy.1)));
    cache.commit(&step);
    // The third is the only one left on the page.
    assert_eq!([0, 1].map(|kv_head| page(&cache, third, kv_head)), shared);
    let step = append(&mut cache, third, 1);
    assert_eq!(step.copies(), []);
    assert!(cache.used_pages() > used);
}

#[test]
fn whole_blocks_are_never_copied() {
    let mut cache = tables(&pattern(), 1000, true);
    let first = cache.add();
    append(&mut cache, first, 96);
    let fork = cache.fork(first).unwrap();
    for sequence in [first, fork] {
        let step = append(&mut cache, sequence, 3);
        assert_eq!(step.copies(), []);
    }
    let entries = |sequence| cache.entries(sequence, 1).unwrap().to_vec();
    let (of_first, of_fork) = (entries(first), entries(fork));
    let (last, shared) = of_first.split_last().unwrap();
    assert_eq!(shared, &of_fork[..shared.len()]);
    assert_ne!(last.page, of_fork.last().unwrap().page);
}

#[test]
fn nothing_is_copied_where_nothing_is_appended() {
    let mut cache = tables(&pattern(), 1000, true);
    let first = cache.add();
    append(&mut cache, first, 100);
    cache.fork(first).unwrap();
    let used = cache.used_pages();
    assert_eq!(append(&mut cache, first, 0).copies(), []);
    assert_eq!(cache.used_pages(), used);
}

/// What a sequence no longer needs stays for its forks.
#[test]
fn a_fork_keeps_what_the_other_drops() {
    for evict in [true, false] {
        let mut cache = tables(&pattern(), 1000, evict);
        let first = cache.add();
        append(&mut cache, first, 100);
        let fork = cache.fork(first).unwrap();
        let before = blocks(&cache, fork, 0);
        let entries = cache.entries(fork, 0).unwrap().to_vec();
        append(&mut cache, first, 500);
        assert_eq!(blocks(&cache, fork, 0), before);
        assert_eq!(cache.entries(fork, 0).unwrap(), entries);
        cache.remove(first).unwrap();
        let expected = if evict {
            cache.predicted_pages(100).unwrap()
        } else {
            cache.full_pages(100)
        };
        assert_eq!(cache.used_pages(), expected);
    }
}

/// The same calls give the same ids.
#[test]
fn ids_are_those_of_other_tables() {
    let mut caches =
        [pattern(), Pattern::dense(8, 2).unwrap()].map(|pattern| tables(&pattern, 50, true));
    let ids = caches.each_mut().map(|cache| {
        let first = cache.add();
        append(cache, first, 10);
        let fork = cache.fork(first).unwrap();
        cache.remove(first).unwrap();
        [first, fork, cache.add()]
    });
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0][0].to_string(), "sequence 0");
}
