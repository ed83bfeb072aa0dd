//! Rows: what is written is read, and nothing else is.

mod common;

use std::fs;

use common::sparse;
use s2_bench::record::{Record, RecordError, Row};
use serde_json::{Value, json};

fn as_json() -> Value {
    serde_json::to_value(sparse(1234.5)).unwrap()
}

#[test]
fn rows_survive_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("2026-01-02-cpu/cpu.jsonl");
    let rows = [
        sparse(1_234.567_890_123_4),
        Row {
            engine: None,
            peak_bytes: None,
            ..sparse(0.1 + 0.2)
        },
    ];
    for row in &rows {
        row.append(&path).unwrap();
    }
    assert_eq!(Row::read(&path).unwrap(), rows);
}

#[test]
fn a_missing_field_is_refused_also_where_null_is_accepted() {
    let fields: Vec<String> = as_json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields.len(), 29);
    for field in fields {
        let mut row = as_json();
        row.as_object_mut().unwrap().remove(&field);
        let error = serde_json::from_value::<Row>(row).unwrap_err().to_string();
        assert!(error.contains(&field), "without {field}: {error}");
    }
}

#[test]
fn null_is_accepted_where_a_field_can_mean_nothing() {
    for field in [
        "engine",
        "block",
        "local_blocks",
        "vert_stride",
        "peak_bytes",
        "driver",
    ] {
        let mut row = as_json();
        row[field] = Value::Null;
        serde_json::from_value::<Row>(row).unwrap_or_else(|error| panic!("{field}: {error}"));
    }
    let mut row = as_json();
    row["median_us"] = Value::Null;
    assert!(serde_json::from_value::<Row>(row).is_err());
}

#[test]
fn unknown_fields_and_names_are_refused() {
    let with = |field: &str, value: Value| {
        let mut row = as_json();
        row[field] = value;
        serde_json::from_value::<Row>(row).map_err(|error| error.to_string())
    };
    assert!(
        with("colour", json!("blue"))
            .unwrap_err()
            .contains("colour")
    );
    assert!(
        with("pass", json!("sideways"))
            .unwrap_err()
            .contains("forward-backward")
    );
    assert!(
        with("backend", json!("abacus"))
            .unwrap_err()
            .contains("flex")
    );
    assert!(
        with("engine", json!("steam"))
            .unwrap_err()
            .contains("wgmma")
    );
    assert!(with("dtype", json!("f8")).unwrap_err().contains("bf16"));
    assert!(with("provider", json!("someone-else")).is_ok());
}

#[test]
fn an_error_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let good = serde_json::to_string(&sparse(1.0)).unwrap();
    fs::write(&path, format!("{good}\n\n{{}}\n")).unwrap();
    let error = Row::read(&path).unwrap_err();
    assert!(
        matches!(&error, RecordError::Line { line: 3, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("rows.jsonl:3"), "{error}");
    assert!(matches!(
        Row::read(&folder.path().join("none.jsonl")),
        Err(RecordError::File { .. })
    ));
}
