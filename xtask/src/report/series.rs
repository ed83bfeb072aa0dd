//! Which rows of a run make a series.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use s2_bench::record::{Dtype, Row};
use s2_bench::summary::S2_ATTENTION;

/// What rows share that differ in length and pattern only.
pub type Family = (Dtype, usize, usize, usize, usize);

/// The family of a row.
pub fn family(row: &Row) -> Family {
    (row.dtype, row.batch, row.heads, row.kv_heads, row.head_dim)
}

/// What rows share that differ in length only.
pub type Series = (Family, Option<usize>, Option<usize>, Option<usize>);

/// The series of a row.
pub fn series(row: &Row) -> Series {
    (family(row), row.block, row.local_blocks, row.vert_stride)
}

/// The sparse rows.
pub fn sparse<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    let rows = rows.iter().copied();
    rows.filter(|row| !row.is_dense()).collect()
}

/// The group of this library's rows that covers the most values.
pub fn widest<Key: Ord + Copy>(
    rows: &[&Row],
    key: impl Fn(&Row) -> Key,
    value: impl Fn(&Row) -> usize,
) -> Result<Key> {
    let mut values: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.provider == S2_ATTENTION) {
        let values = values.entry(key(row)).or_default();
        let value = value(row);
        if !values.contains(&value) {
            values.push(value);
        }
    }
    let (key, values) = values
        .into_iter()
        .max_by_key(|(_, values)| values.len())
        .context("no rows of this library")?;
    ensure!(values.len() > 1, "one point is no line");
    Ok(key)
}

/// What this library is called beside others: with its engine where a run has several.
pub fn ours(rows: &[&Row], row: &Row) -> String {
    let is_ours = |other: &&&Row| other.provider == S2_ATTENTION;
    let several = rows
        .iter()
        .filter(is_ours)
        .any(|other| other.engine != row.engine);
    match row.engine {
        Some(engine) if several => format!("S2 ({engine})"),
        _ => "S2".to_owned(),
    }
}

/// The pattern in a few words.
pub fn pattern(row: &Row) -> String {
    match (row.block, row.local_blocks, row.vert_stride) {
        (Some(block), Some(local), Some(stride)) => {
            format!("block {block}, local {local}, stride {stride}")
        }
        _ if row.density == 1.0 => "dense".to_owned(),
        _ => row.pattern.clone(),
    }
}
