//! The report's figures against counting token by token, and the laws that they follow.

mod common;

use std::time::{Duration, Instant};

use common::random::config;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use s2_attention_pattern::{Pattern, PatternConfig, PatternError, PatternReport, Preset, Rule};

/// Whether query head `head` attends key token `t` from query token `s`.
fn attends_token(pattern: &Pattern, head: usize, s: usize, t: usize) -> bool {
    let block = pattern.block_size();
    pattern.attends(head, s / block, t / block) && (!pattern.head(head).is_causal() || t <= s)
}

fn check_by_counting(pattern: &Pattern, tokens: usize) -> Result<(), TestCaseError> {
    let report = PatternReport::new(pattern, tokens).unwrap();
    let blocks = tokens.div_ceil(pattern.block_size());
    let heads = 0..pattern.num_heads();
    let all_tokens = || (0..tokens).flat_map(|s| (0..tokens).map(move |t| (s, t)));
    let all_blocks = || (0..blocks).flat_map(|i| (0..blocks).map(move |j| (i, j)));

    let mut total = [0, 0];
    for head in heads.clone() {
        let causal = pattern.head(head).is_causal();
        let attended = all_tokens()
            .filter(|&(s, t)| attends_token(pattern, head, s, t))
            .count() as u128;
        let dense = all_tokens().filter(|&(s, t)| !causal || t <= s).count() as u128;
        let block_pairs = all_blocks()
            .filter(|&(i, j)| pattern.attends(head, i, j))
            .count();
        let empty = (0..blocks)
            .filter(|&i| !(0..blocks).any(|j| pattern.attends(head, i, j)))
            .count();
        prop_assert_eq!(report.heads[head].attended_pairs, attended, "head {}", head);
        prop_assert_eq!(report.heads[head].density, attended as f64 / dense as f64);
        prop_assert_eq!(report.heads[head].block_pairs, block_pairs);
        prop_assert_eq!(report.heads[head].empty_rows, empty);
        total = [total[0] + attended, total[1] + dense];
    }
    prop_assert_eq!([report.attended_pairs, report.dense_pairs], total);
    prop_assert_eq!(report.density, total[0] as f64 / total[1] as f64);
    prop_assert_eq!(report.ideal_speedup.is_some(), total[0] > 0);

    let rows: Vec<usize> = (heads.clone().flat_map(|h| (0..blocks).map(move |i| (h, i))))
        .map(|(h, i)| (0..blocks).filter(|&j| pattern.attends(h, i, j)).count())
        .collect();
    prop_assert_eq!((report.row_work.min, report.row_work.max), spread(&rows));
    prop_assert!((report.row_work.mean - mean(&rows)).abs() < 1e-9);
    let columns: Vec<usize> = (heads.clone().flat_map(|h| (0..blocks).map(move |j| (h, j))))
        .map(|(h, j)| (0..blocks).filter(|&i| pattern.attends(h, i, j)).count())
        .collect();
    prop_assert_eq!(
        (report.column_work.min, report.column_work.max),
        spread(&columns)
    );
    prop_assert_eq!(
        report.empty_rows,
        rows.iter().filter(|&&count| count == 0).count()
    );

    let broken = |h: usize, i: usize, j: usize| {
        i > j && pattern.attends(h, i, j) && !pattern.attends(h, i - 1, j)
    };
    let efficient = !heads
        .clone()
        .any(|h| all_blocks().any(|(i, j)| broken(h, i, j)));
    prop_assert_eq!(report.kv_efficient, efficient);
    if let Some([h, i, j]) = report.kv_inefficient_at {
        prop_assert!(broken(h, i, j), "head {} row {} column {}", h, i, j);
    }

    let covered = |heads: std::ops::Range<usize>| {
        let causal = heads.clone().all(|h| pattern.head(h).is_causal());
        let dense = all_blocks().filter(|&(i, j)| !causal || j <= i).count();
        let some = all_blocks()
            .filter(|&(i, j)| heads.clone().any(|h| pattern.attends(h, i, j)))
            .count();
        some as f64 / dense as f64
    };
    prop_assert_eq!(report.coverage, covered(heads));
    for (kv_head, of_kv_head) in report.kv_heads.iter().enumerate() {
        prop_assert_eq!(
            of_kv_head.coverage,
            covered(pattern.heads().query_heads(kv_head))
        );
    }
    Ok(())
}

fn spread(work: &[usize]) -> (usize, usize) {
    (*work.iter().min().unwrap(), *work.iter().max().unwrap())
}

fn mean(work: &[usize]) -> f64 {
    work.iter().sum::<usize>() as f64 / work.len() as f64
}

#[test]
fn every_figure_equals_counting() {
    let mut runner = TestRunner::new(Config {
        cases: 1500,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(
        &(config(), 1usize..=3, 1usize..=50),
        |(mut config, block_size, tokens)| {
            config.block_size = block_size;
            config.table_blocks = Some(14);
            let pattern = config
                .build()
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let most = pattern
                .max_blocks()
                .map_or(tokens, |(q, kv)| q.min(kv) * block_size);
            check_by_counting(&pattern, tokens.min(most))
        },
    );
    ran.unwrap();
}

/// Blocks that KV head 0 keeps of `blocks`, the newest included.
fn kept_blocks(config: &PatternConfig, blocks: usize) -> usize {
    let pattern = config.build().unwrap();
    let report = PatternReport::new(&pattern, blocks * pattern.block_size()).unwrap();
    assert_eq!(
        report.kv_heads[0].kept_tokens,
        pattern.block_size() * (pattern.retained(0, blocks - 1).count() + 1)
    );
    report.kv_heads[0].kept_tokens / pattern.block_size()
}

#[test]
fn kept_blocks_follow_the_law() {
    for (local, stride, group, blocks) in [
        (16, 8, 4, 2064),
        (4, 16, 8, 1028),
        (1, 4, 8, 401),
        (3, 5, 2, 503),
    ] {
        let config = PatternConfig::local_stride(local, stride, 64, 4 * group)
            .with_num_kv_heads(4)
            .with_head_step(1);
        let far = blocks - local;
        assert_eq!(far % stride, 0, "the law is exact for whole periods");
        assert_eq!(
            kept_blocks(&config.clone().per_kv_head(), blocks),
            local + far / stride
        );
        assert_eq!(
            kept_blocks(&config, blocks),
            local + far * group.min(stride) / stride
        );
        assert_eq!(
            kept_blocks(&config.with_dense_heads(4 * group), blocks),
            blocks
        );
    }
}

#[test]
fn heads_cover_the_context_when_there_are_enough_that_differ() {
    let coverage = |config: PatternConfig| {
        PatternReport::new(&config.build().unwrap(), 64 * 256)
            .unwrap()
            .coverage
    };
    let config = |stride, heads| PatternConfig::local_stride(2, stride, 64, heads);
    assert_eq!(coverage(config(8, 8)), 1.0);
    assert_eq!(coverage(config(8, 32)), 1.0);
    assert!(
        coverage(config(8, 7)) < 1.0,
        "fewer heads than stride columns"
    );
    assert!(
        coverage(config(8, 8).with_head_step(2)) < 0.6,
        "a step that shares a factor with the stride"
    );
    assert_eq!(coverage(config(8, 8).with_head_step(3)), 1.0);
    assert!(coverage(config(8, 8).homogeneous()) < 0.2);
    assert_eq!(coverage(Preset::Hhst.config(12, 4)), 1.0);
}

#[test]
fn strides_that_divide_each_other_are_kv_efficient() {
    let efficient = |strides: &[usize]| {
        let rule = Rule::Ranges {
            strides: strides.to_vec(),
            range_blocks: (1..strides.len()).map(|at| 4 * at).collect(),
        };
        let report =
            PatternReport::new(&PatternConfig::new(rule, 16, 4).build().unwrap(), 16 * 200)
                .unwrap();
        assert_eq!(report.kv_efficient, report.kv_inefficient_at.is_none());
        report.kv_efficient
    };
    assert!(efficient(&[1, 4, 8]));
    assert!(efficient(&[2, 4, 8, 8]));
    assert!(!efficient(&[1, 4, 6]));
    assert!(!efficient(&[1, 8, 4]));
}

#[test]
fn distances_on_a_stride_are_not_kv_efficient() {
    // Rows 0 to 4 attend block 0, then every fourth: it is gone in row 5 and back in row 8.
    let relative = Rule::BidirectionalRelative {
        local_left: 1,
        local_right: 1,
        vert_stride: 4,
    };
    let rule = Rule::SlidingWindow {
        left: 4,
        right: None,
    }
    .union(relative.causal_clamp());
    let pattern = PatternConfig::new(rule, 16, 1).build().unwrap();
    assert!(pattern.max_blocks().is_none());
    let report = PatternReport::new(&pattern, 16 * 20).unwrap();
    assert_eq!(report.kv_inefficient_at, Some([0, 8, 0]));
}

#[test]
fn a_million_tokens_take_seconds_at_most() {
    let start = Instant::now();
    for config in [
        PatternConfig::local_stride(16, 64, 64, 64).with_num_kv_heads(8),
        PatternConfig::local_stride(16, 16, 16, 64),
        PatternConfig::dense(64, 64),
    ] {
        let report = PatternReport::new(&config.build().unwrap(), 1 << 20).unwrap();
        println!("{report}\n{:?} so far\n", start.elapsed());
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_report_reads_and_comes_back() {
    let report =
        PatternReport::new(&Preset::Phi3Small.config(32, 8).build().unwrap(), 8192).unwrap();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(
        serde_json::from_str::<PatternReport>(&json).unwrap(),
        report
    );
    let text = report.to_string();
    assert!(
        text.starts_with(
            "local 16 + stride 8 (block 64, 32 query / 8 KV heads, per head, head offset 1)"
        ),
        "{text}"
    );
    assert!(
        text.contains("KV-efficient         yes") && text.contains("coverage             100.00 %"),
        "{text}"
    );
}

#[test]
fn lengths_that_mean_nothing_are_refused() {
    let pattern = Pattern::local_stride(2, 4, 16, 2).unwrap();
    let error = PatternReport::new(&pattern, 0).unwrap_err();
    assert_eq!(
        error,
        PatternError::TooSmall {
            name: "tokens",
            value: 0,
            min: 1
        }
    );
}
