//! `s2-bench check` as a program. Without a device there is nothing to run, unless `S2_REQUIRE_GPU` asks for one.

#[path = "common/device.rs"]
mod device;

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use device::{s2_bench, stderr};

const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/kernels/tests/golden"
);

fn check(arguments: &[&str]) -> Option<Output> {
    let few = ["check", "--few-kernels", "--random", "6", "--repeats", "2"];
    s2_bench(&[&few[..], arguments].concat())
}

#[test]
fn checks_leave_a_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("check.jsonl");
    let arguments = ["--only", "nan,edges", "--json", file.to_str().unwrap()];
    let Some(output) = check(&arguments) else {
        return;
    };
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = fs::read_to_string(&file).unwrap();
    let rows: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["nan", "edges"]);
    for row in rows {
        assert_eq!(row["ok"], true);
        assert!(row["seconds"].as_f64().unwrap() > 0.0);
        let features = row["features"].as_array().unwrap();
        assert!(features.contains(&"f32".into()), "{row}");
        for text in ["detail", "device", "runtime"] {
            assert!(!row[text].as_str().unwrap().is_empty(), "{row}");
        }
    }
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(screen.contains("2 of 2 checks hold"), "{screen}");
}

/// Data that are not those of the kernels: the program must say so and fail.
#[test]
fn a_miss_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["attention", "attention_more"] {
        let target = folder.path().join(part);
        fs::create_dir(&target).unwrap();
        for file in fs::read_dir(Path::new(GOLDEN).join(part)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    let spoiled = folder.path().join("attention/bidirectional.safetensors");
    let mut bytes = fs::read(&spoiled).unwrap();
    // The header's length, the header, the tensors.
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let out = tensors["out"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + out..][..4].copy_from_slice(&9.0_f32.to_le_bytes());
    fs::write(&spoiled, bytes).unwrap();
    let golden = folder.path().to_str().unwrap();
    let Some(output) = check(&["--only", "golden", "--golden", golden]) else {
        return;
    };
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{screen}");
    assert!(
        screen.contains("FAILED") && screen.contains("bidirectional: out[0]"),
        "{screen}"
    );
}

/// A check that has nothing to hold does not hold.
#[test]
fn types_are_those_that_are_asked_for() {
    let Some(output) = check(&["--only", "golden,nan", "--types", "f16"]) else {
        return;
    };
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{screen}");
    assert!(screen.contains("1 of 2 checks hold"), "{screen}");
    assert!(screen.contains("F32: NOT CHECKED"), "{screen}");
}

#[test]
fn what_does_not_exist_is_refused() {
    for arguments in [["--only", "nothing"], ["--golden", "nowhere"]] {
        let Some(output) = check(&arguments) else {
            return;
        };
        let error = stderr(&output);
        assert!(
            !output.status.success() && error.contains(arguments[1]),
            "{error}"
        );
    }
}
