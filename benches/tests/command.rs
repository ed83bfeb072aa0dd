//! `s2-bench` as a program.

use std::process::{Command, Output};

use s2_bench::cache_record::CacheRow;
use s2_bench::record::{Pass, Record, Row};
use s2_bench::summary::{BURN_ATTENTION, BURN_MATMUL, S2_ATTENTION};

fn s2_bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_s2-bench"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_run_leaves_rows_of_every_provider_and_pass() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().to_str().unwrap();
    let output = s2_bench(&[
        "bench",
        "--problems",
        "s512_d64",
        "--runs",
        "1",
        "--results",
        results,
    ]);
    let screen = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let run_folder = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let rows = Row::read(&run_folder.join("selection.jsonl")).unwrap();
    assert!(
        rows.iter()
            .all(|row| row.run == rows[0].run && row.median_us > 0.0 && row.runs >= 1)
    );
    assert_eq!(
        rows.iter()
            .filter(|row| row.provider == BURN_MATMUL)
            .count(),
        1
    );
    let find = |provider: &str, dense: bool, pass: Pass| {
        let found = rows.iter().find(|row| {
            row.provider == provider && (row.density == 1.0) == dense && row.pass == pass
        });
        found.unwrap_or_else(|| panic!("no row of {provider}, dense {dense}, {pass}"))
    };
    for pass in [Pass::Forward, Pass::Backward, Pass::ForwardBackward] {
        find(BURN_ATTENTION, true, pass);
        find(S2_ATTENTION, true, pass);
        assert!(find(S2_ATTENTION, false, pass).peak_bytes.is_some());
    }
    // Burn keeps scores of 8 heads x 512 x 512 f32 for its gradients, this library does not.
    let scores = 8 * 512 * 512 * 4;
    assert!(
        find(BURN_ATTENTION, true, Pass::ForwardBackward)
            .peak_bytes
            .unwrap()
            > scores
    );
    assert!(
        find(S2_ATTENTION, true, Pass::ForwardBackward)
            .peak_bytes
            .unwrap()
            < scores
    );
    assert!(
        screen.contains("speed-up") && screen.contains("b1_h8_s512_d64_f32_blk64_l4_v8"),
        "{screen}"
    );
}

#[test]
fn the_cache_of_a_generation_leaves_rows() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().to_str().unwrap();
    let options = [
        "--tokens",
        "300",
        "--points",
        "6",
        "--stride",
        "4",
        "--results",
        results,
    ];
    let output = s2_bench(&[&["cache"][..], &options].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let screen = String::from_utf8_lossy(&output.stdout);
    assert!(
        screen.contains("300 tokens") && screen.contains("6 rows"),
        "{screen}"
    );
    let run_folder = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
    let rows = CacheRow::read(&run_folder.unwrap().path().join("cache.jsonl")).unwrap();
    let tokens: Vec<usize> = rows.iter().map(|row| row.tokens).collect();
    assert_eq!(tokens, [50, 100, 150, 200, 250, 300]);
    for row in &rows {
        assert_eq!(row.memory_bytes, row.predicted_bytes);
        // The law has parts of pages: less than one in each of the 2 layers' 4 lists.
        let page = 2 * 16 * 16 * 4;
        let from_law = row.memory_bytes as f64 - row.law_bytes(row.tokens as f64);
        assert!(from_law.abs() < (8 * page) as f64, "{row:?}");
    }
    let last = &rows[5];
    assert!(2 * last.memory_bytes < last.full_bytes && last.seconds > 0.0);

    let output = s2_bench(&["cache", "--points", "0", "--results", results]);
    assert!(!output.status.success());
}

#[test]
fn what_cannot_run_is_an_error() {
    let output = s2_bench(&["bench", "--backend", "torch"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("torch") && error.contains("flex"),
        "{error}"
    );
    let output = s2_bench(&["bench", "--problems", "nothing"]);
    assert!(!output.status.success());
    let output = s2_bench(&["bench", "--quick", "--engine", "mma"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("--engine mma"),
        "{error}"
    );
}

#[test]
fn the_catalogue_is_json_for_other_programs() {
    let output = s2_bench(&["problems", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["name"], "b1_h8_s512_d64_f32_dense");
    assert_eq!(
        (
            &first["seq"],
            &first["dtype"],
            &first["pattern"]["block_size"]
        ),
        (&512.into(), &"f32".into(), &64.into())
    );
}
