//! Rows, columns and retention against the written rule, evaluated block by block.

mod common;

use std::cell::Cell;
use std::ops::Range;

use common::random::{TABLE_BLOCKS, config};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use s2_attention_pattern::{Blocks, Pattern, PatternConfig, PatternError};

const CASES: u32 = 12_000;

fn runner() -> TestRunner {
    TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    })
}

/// Builds a configuration, with a table where it needs one.
fn build(mut config: PatternConfig) -> Result<Pattern, TestCaseError> {
    match config.build() {
        Err(PatternError::NoClosedForm { .. }) => {
            config.table_blocks = Some(TABLE_BLOCKS);
            config.build()
        }
        built => built,
    }
    .map_err(|error| TestCaseError::fail(error.to_string()))
}

/// `blocks` holds exactly `expected`, however it is asked.
fn check_blocks(blocks: &Blocks<'_>, expected: &[usize], what: &str) -> Result<(), TestCaseError> {
    let listed: Vec<usize> = blocks.iter().collect();
    prop_assert_eq!(&listed, expected, "{}", what);
    prop_assert_eq!(blocks.count(), expected.len(), "count of {}", what);
    prop_assert_eq!(blocks.is_empty(), expected.is_empty());
    prop_assert_eq!(blocks.iter().len(), expected.len());
    for (t, &block) in expected.iter().enumerate() {
        prop_assert_eq!(blocks.nth(t), block, "nth({}) of {}", t, what);
    }
    if let Some(pieces) = blocks.pieces() {
        let unrolled: Vec<usize> = pieces.iter().flat_map(|piece| piece.iter()).collect();
        prop_assert_eq!(&unrolled, expected, "pieces of {}", what);
        prop_assert!(pieces.iter().all(|piece| piece.count > 0 && piece.step > 0));
    }
    Ok(())
}

/// All rows and columns of all heads, clipped to a window of the block plane.
fn check_window(
    pattern: &Pattern,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Result<(), TestCaseError> {
    for h in 0..pattern.num_heads() {
        let head = pattern.head(h);
        for i in rows.clone() {
            let expected: Vec<usize> = columns
                .clone()
                .filter(|&j| pattern.attends(h, i, j))
                .collect();
            check_blocks(
                &head.row(i, columns.clone()),
                &expected,
                &format!("head {h} row {i}"),
            )?;
            prop_assert!(
                !head.is_causal() || expected.iter().all(|&j| j <= i),
                "head {} is not causal",
                h
            );
            for j in columns.clone() {
                prop_assert_eq!(
                    head.keeps(i, j),
                    pattern.attends(h, i, j),
                    "head {} block {},{}",
                    h,
                    i,
                    j
                );
            }
        }
        for j in columns.clone() {
            let expected: Vec<usize> = rows.clone().filter(|&i| pattern.attends(h, i, j)).collect();
            check_blocks(
                &head.column(j, rows.clone()),
                &expected,
                &format!("head {h} column {j}"),
            )?;
        }
    }
    Ok(())
}

#[test]
fn closed_forms_and_tables_equal_the_written_rule() {
    let (closed, tabulated, most_bands) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let window = (
        0usize..12,
        0usize..22,
        0usize..12,
        0usize..22,
        prop_oneof![Just(0usize), 0usize..5000],
    );
    let ran = runner().run(
        &(config(), window),
        |(config, (row, rows, column, columns, far))| {
            let pattern = build(config)?;
            match pattern.max_blocks() {
                None => {
                    closed.set(closed.get() + 1);
                    for schedule in pattern.schedules() {
                        most_bands.set(most_bands.get().max(schedule.bands().unwrap().len()));
                    }
                    check_window(&pattern, 0..TABLE_BLOCKS, 0..TABLE_BLOCKS)?;
                    check_window(
                        &pattern,
                        far + row..far + row + rows,
                        far + column..far + column + columns,
                    )
                }
                Some((q_blocks, kv_blocks)) => {
                    tabulated.set(tabulated.get() + 1);
                    check_window(&pattern, 0..q_blocks, 0..kv_blocks)?;
                    check_window(
                        &pattern,
                        row.min(q_blocks)..(row + rows).min(q_blocks),
                        column.min(kv_blocks)..(column + columns).min(kv_blocks),
                    )
                }
            }
        },
    );
    ran.unwrap();
    println!(
        "{} closed, {} tabulated, at most {} bands",
        closed.get(),
        tabulated.get(),
        most_bands.get()
    );
    assert!(closed.get() > CASES / 2 && tabulated.get() > CASES / 20);
}

#[test]
fn retention_equals_the_written_rule() {
    // Longer than any period or window that the random configurations have.
    const HORIZON: usize = 400;
    let (kept, freed) = (Cell::new(0), Cell::new(0));
    let ran = runner().run(&(config(), 0usize..TABLE_BLOCKS), |(config, n)| {
        let pattern = build(config)?;
        let columns = pattern
            .max_blocks()
            .map_or(TABLE_BLOCKS, |(_, kv_blocks)| kv_blocks);
        // A table attends nothing beyond its end, whatever the rule would go on to say.
        let within = |h: usize, i| {
            pattern
                .head(h)
                .table()
                .is_none_or(|table| i < table.q_blocks())
        };
        for kv_head in 0..pattern.num_kv_heads() {
            let attended = |i, j| {
                pattern
                    .heads()
                    .query_heads(kv_head)
                    .any(|h| within(h, i) && pattern.attends(h, i, j))
            };
            let retained: Vec<usize> = pattern.retained(kv_head, n).collect();
            for j in 0..columns {
                match pattern.released_at(kv_head, j) {
                    Some(at) => {
                        freed.set(freed.get() + 1);
                        prop_assert!(
                            at == 0 || attended(at - 1, j),
                            "{} is not needed until {}",
                            j,
                            at
                        );
                        prop_assert!(
                            !(at..HORIZON).any(|i| attended(i, j)),
                            "{} is needed after {}",
                            j,
                            at
                        );
                    }
                    None => {
                        kept.set(kept.get() + 1);
                        prop_assert!(
                            (HORIZON / 2..HORIZON).any(|i| attended(i, j)),
                            "{} is not needed for ever",
                            j
                        );
                    }
                }
                let needed = j < n && (n..HORIZON).any(|i| attended(i, j));
                prop_assert_eq!(retained.contains(&j), needed, "{} at {}", j, n);
            }
        }
        Ok(())
    });
    ran.unwrap();
    assert!(
        kept.get() > CASES && freed.get() > CASES,
        "{} kept, {} freed",
        kept.get(),
        freed.get()
    );
}

#[test]
fn serde_gives_the_same_pattern_back() {
    let ran = runner().run(&config(), |config| {
        let pattern = build(config)?;
        let json = serde_json::to_string(&pattern).unwrap();
        let back: Pattern =
            serde_json::from_str(&json).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(pattern.config(), back.config());
        prop_assert_eq!(&pattern, &back);
        prop_assert_eq!(pattern.schedules(), back.schedules());
        Ok(())
    });
    ran.unwrap();
}
