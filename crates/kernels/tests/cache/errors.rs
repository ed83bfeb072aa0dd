//! Every cache and step that is refused, with the values in the message.

use s2_attention_kernels::cache::{Append, BlockTables, CacheError, CacheLimits};
use s2_attention_kernels::problem::MAX_POSITION;
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use crate::{append, tables};

const LIMITS: CacheLimits = CacheLimits {
    pages: Some(10),
    max_tokens: 100,
};

fn pattern() -> Pattern {
    Pattern::local_stride(2, 4, 4, 1).unwrap()
}

fn refused(pattern: Pattern, limits: CacheLimits) -> (CacheError, String) {
    let error = BlockTables::new(pattern, limits, true).unwrap_err();
    let message = error.to_string();
    (error, message)
}

/// What a step is refused with, whether it is to begin or only asked for.
fn refused_step(cache: &mut BlockTables, appends: &[Append]) -> CacheError {
    let error = cache.begin(appends).unwrap_err();
    assert_eq!(cache.items(appends), Err(error.clone()));
    error
}

#[test]
fn caches() {
    let rule = Rule::SlidingWindow {
        left: 2,
        right: Some(1),
    };
    let causal = Rule::Dense { causal: true };
    let mixed = PatternConfig::new(Rule::PerHead(vec![causal, rule]), 4, 2);
    let (error, message) = refused(mixed.build().unwrap(), LIMITS);
    assert_eq!(error, CacheError::NotCausal { head: 1 });
    assert!(
        message.contains("query head 1") && message.contains("CausalClamp"),
        "{message}"
    );

    for seen in [0, MAX_POSITION + 1, usize::MAX] {
        let limits = CacheLimits {
            max_tokens: seen,
            ..LIMITS
        };
        let (error, message) = refused(pattern(), limits);
        let accepted = MAX_POSITION;
        assert_eq!(error, CacheError::MaxTokens { seen, accepted });
        assert!(
            message.contains(&format!("{seen}; ")) && message.contains("2147483647"),
            "{message}"
        );
    }
    for seen in [0, 1 << 31] {
        let limits = CacheLimits {
            pages: Some(seen),
            ..LIMITS
        };
        let (error, message) = refused(pattern(), limits);
        let accepted = i32::MAX as usize;
        assert_eq!(error, CacheError::PageLimit { seen, accepted });
        assert!(
            message.contains(&format!("limited to {seen} pages")),
            "{message}"
        );
    }
}

#[test]
fn masks_that_end_before_the_cache() {
    for shape in [[1, 24, 30], [1, 30, 24]] {
        let mask = BlockMask::from_fn(shape, true, |_, _, _| true).unwrap();
        let masked = PatternConfig::new(Rule::Custom(mask), 4, 2)
            .build()
            .unwrap();
        let (error, message) = refused(masked.clone(), LIMITS);
        let expected = CacheError::TableTooSmall {
            max_tokens: 100,
            seen: 25,
            accepted: 24,
        };
        assert_eq!(error, expected);
        assert!(message.contains("at least 25 blocks"), "{message}");
        // All that the mask covers.
        let mut cache = tables(&masked, 96, true);
        let sequence = cache.add();
        append(&mut cache, sequence, 96);
        if shape[1] == 24 {
            assert_eq!(cache.used_pages(), 0, "no query comes after the mask");
        }
    }
}

#[test]
fn sequences_that_are_not_there() {
    let mut cache = BlockTables::new(pattern(), LIMITS, true).unwrap();
    let sequence = cache.add();
    cache.remove(sequence).unwrap();
    let error = CacheError::UnknownSequence { sequence };
    assert_eq!(cache.remove(sequence), Err(error.clone()));
    assert_eq!(cache.reset(sequence), Err(error.clone()));
    assert_eq!(cache.fork(sequence), Err(error.clone()));
    assert_eq!(cache.tokens(sequence), Err(error.clone()));
    assert_eq!(cache.entries(sequence, 0), Err(error.clone()));
    let appends = [Append {
        sequence,
        tokens: 1,
    }];
    assert_eq!(refused_step(&mut cache, &appends), error);
    assert!(
        error.to_string().contains("sequence 0 is not in the cache"),
        "{error}"
    );
}

#[test]
fn steps_that_mean_nothing() {
    let mut cache = BlockTables::new(pattern(), LIMITS, true).unwrap();
    assert_eq!(refused_step(&mut cache, &[]), CacheError::NoItems);
    let [a, b] = [cache.add(), cache.add()];
    let twice = [a, b, a].map(|sequence| Append {
        sequence,
        tokens: 1,
    });
    let error = refused_step(&mut cache, &twice);
    let expected = CacheError::DuplicateSequence {
        sequence: a,
        first: 0,
        second: 2,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("items 0 and 2"), "{error}");
    assert_eq!((cache.tokens(a).unwrap(), cache.used_pages()), (0, 0));
}

#[test]
fn steps_before_the_last_is_committed() {
    let mut cache = BlockTables::new(pattern(), LIMITS, true).unwrap();
    let [sequence, other] = [cache.add(), cache.add()];
    let appends = [Append {
        sequence,
        tokens: 1,
    }];
    let step = cache.begin(&appends).unwrap();
    let error = CacheError::OpenStep { sequence };
    assert_eq!(refused_step(&mut cache, &appends), error);
    assert_eq!(cache.fork(sequence).unwrap_err(), error);
    assert!(error.to_string().contains("not committed"), "{error}");
    // Another sequence may go on.
    append(&mut cache, other, 5);
    cache.commit(&step);
    assert_eq!(append(&mut cache, sequence, 1).items()[0].kv_len, 2);
}

#[test]
fn sequences_that_become_too_long() {
    let mut cache = tables(&pattern(), 100, true);
    let [sequence, other] = [cache.add(), cache.add()];
    append(&mut cache, sequence, 98);
    let used = cache.used_pages();
    for appended in [3, usize::MAX] {
        let appends = [
            Append {
                sequence: other,
                tokens: 20,
            },
            Append {
                sequence,
                tokens: appended,
            },
        ];
        let error = refused_step(&mut cache, &appends);
        let expected = CacheError::TooLong {
            sequence,
            tokens: 98,
            appended,
            accepted: 100,
        };
        assert_eq!(error, expected);
        assert!(
            error
                .to_string()
                .contains(&format!("98 tokens and would get {appended}")),
            "{error}"
        );
        assert_eq!(
            (cache.tokens(other).unwrap(), cache.used_pages()),
            (0, used)
        );
    }
    append(&mut cache, sequence, 2);
}

#[test]
fn steps_that_the_pool_has_no_room_for() {
    let limits = CacheLimits {
        pages: Some(10),
        max_tokens: 1000,
    };
    let mut cache = BlockTables::new(Pattern::dense(4, 1).unwrap(), limits, true).unwrap();
    let [a, b] = [cache.add(), cache.add()];
    append(&mut cache, a, 30);
    let appends = [
        Append {
            sequence: a,
            tokens: 1,
        },
        Append {
            sequence: b,
            tokens: 9,
        },
    ];
    let error = refused_step(&mut cache, &appends);
    let expected = CacheError::OutOfPages {
        needed: 3,
        free: 2,
        pages: 10,
    };
    assert_eq!(error, expected);
    assert!(
        error
            .to_string()
            .contains("needs 3 pages, but 2 of the pool's 10"),
        "{error}"
    );
    assert_eq!(
        (cache.tokens(a).unwrap(), cache.tokens(b).unwrap()),
        (30, 0)
    );
    assert_eq!((cache.used_pages(), cache.num_pages()), (8, 8));
    append(&mut cache, b, 8);
    assert_eq!(cache.used_pages(), 10);

    // Copies count: of three that share half a block, two take a page of their own.
    cache.reset(b).unwrap();
    append(&mut cache, b, 1);
    let forks = [cache.fork(a).unwrap(), cache.fork(a).unwrap()];
    let all = [a, forks[0], forks[1]].map(|sequence| Append {
        sequence,
        tokens: 2,
    });
    let error = refused_step(&mut cache, &all);
    let (needed, free, pages) = (2, 1, 10);
    assert_eq!(
        error,
        CacheError::OutOfPages {
            needed,
            free,
            pages
        }
    );
    cache.remove(b).unwrap();
    let step = cache.begin(&all).unwrap();
    assert_eq!((step.copies().len(), cache.used_pages()), (2, 10));
    cache.commit(&step);
    let error = refused_step(&mut cache, &all);
    assert_eq!(
        error,
        CacheError::OutOfPages {
            needed: 3,
            free: 0,
            pages: 10
        }
    );
    let fork = cache.fork(a).unwrap();
    assert_eq!(cache.tokens(fork).unwrap(), 32);
}

/// Behind the longest sequence there is no prediction: a mask ends there. Everything can be counted at any length.
#[test]
fn lengths_that_no_sequence_has() {
    let mask = BlockMask::from_fn([1, 24, 24], true, |_, _, _| true).unwrap();
    let masked = PatternConfig::new(Rule::Custom(mask), 4, 2).build();
    for pattern in [pattern(), masked.unwrap()] {
        let heads = pattern.num_kv_heads();
        let cache = tables(&pattern, 96, true);
        assert!(cache.predicted_pages(96).is_ok());
        for seen in [97, usize::MAX] {
            let error = cache.predicted_pages(seen).unwrap_err();
            assert_eq!(error, CacheError::Length { seen, accepted: 96 });
            let text = format!("{seen} tokens are more");
            assert!(error.to_string().contains(&text), "{error}");
        }
        assert_eq!(cache.full_pages(97), 25 * heads);
        assert_eq!(cache.full_pages(usize::MAX), (usize::MAX / 4 + 1) * heads);
    }
    let cache = tables(&Pattern::dense(1, 8).unwrap(), 100, true);
    assert_eq!(cache.full_pages(usize::MAX), usize::MAX);
}

/// A sequence that evicts goes on in a pool that its whole length does not fit in.
#[test]
fn eviction_makes_room() {
    let window = PatternConfig::sliding_window(2, 4, 1).build().unwrap();
    for (evict, longest) in [(true, 1000), (false, 40)] {
        let limits = CacheLimits {
            pages: Some(10),
            max_tokens: 1000,
        };
        let mut cache = BlockTables::new(window.clone(), limits, evict).unwrap();
        let sequence = cache.add();
        let appends = [Append {
            sequence,
            tokens: 1,
        }];
        let reached = (0..1000)
            .take_while(|_| {
                cache
                    .begin(&appends)
                    .map(|step| cache.commit(&step))
                    .is_ok()
            })
            .count();
        assert_eq!(reached, longest, "evict: {evict}");
    }
}

#[test]
fn steps_that_cannot_be_counted() {
    let pattern = Pattern::dense(1 << 20, 1).unwrap();
    let mut cache = tables(&pattern, MAX_POSITION, true);
    let [a, b] = [cache.add(), cache.add()];
    let appends = [a, b].map(|sequence| Append {
        sequence,
        tokens: 1 << 30,
    });
    let error = refused_step(&mut cache, &appends);
    let (seen, accepted) = (1 << 31, MAX_POSITION);
    assert_eq!(error, CacheError::Rows { seen, accepted });
    assert!(
        error.to_string().contains("appends 2147483648 tokens"),
        "{error}"
    );

    let mut cache = tables(&Pattern::dense(1, 64).unwrap(), 1 << 20, true);
    let appends: Vec<Append> = (0..16)
        .map(|_| Append {
            sequence: cache.add(),
            tokens: 1,
        })
        .collect();
    let error = refused_step(&mut cache, &appends);
    let seen = 16 * (3 + 64 * (1 + 2 * (1 << 20)));
    assert_eq!(error, CacheError::Words { seen, accepted });
    assert!(error.to_string().contains("fewer sequences"), "{error}");
    assert_eq!(cache.used_pages(), 0);
    assert!(cache.begin(&appends[..15]).is_ok());
}
