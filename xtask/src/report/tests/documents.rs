//! Documents, and the files that reports are made of.

use std::fs;
use std::path::Path;

use s2_bench::left_out::LeftOut;
use s2_bench::record::{Record, Row};
use serde_json::json;

use super::super::{ReportArgs, run};
use super::{gpu_rows, rows};

fn write(root: &Path, name: &str, rows: &[Row]) {
    for row in rows {
        row.append(&root.join("benches/results").join(name))
            .unwrap();
    }
}

fn repository(readme: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("docs")).unwrap();
    fs::write(root.path().join("README.md"), readme).unwrap();
    root
}

const UNCHANGED: ReportArgs = ReportArgs {
    results: None,
    run: None,
};

#[test]
fn documents_are_filled_between_their_markers_and_stay_as_they_are_after_that() {
    let readme = "# Title\n\n<!-- report: speed benches/results/x/cpu.jsonl a -->\nold\n<!-- end of report -->\n\n\
                  <!-- report: time-by-length benches/results/x/cpu.jsonl a -->\n<!-- end of report -->\nThe end.\n";
    let root = repository(readme);
    write(root.path(), "x/cpu.jsonl", &rows("a"));
    run(root.path(), &UNCHANGED).unwrap();
    let filled = fs::read_to_string(root.path().join("README.md")).unwrap();
    assert!(
        filled.starts_with(
            "# Title\n\n<!-- report: speed benches/results/x/cpu.jsonl a -->\n| tokens |"
        ),
        "{filled}"
    );
    assert!(
        filled
            .contains("](docs/images/time-by-length-cpu.svg)\n<!-- end of report -->\nThe end.\n"),
        "{filled}"
    );
    assert!(
        !filled.contains("old")
            && root
                .path()
                .join("docs/images/time-by-length-cpu.svg")
                .exists()
    );

    run(root.path(), &UNCHANGED).unwrap();
    assert_eq!(
        fs::read_to_string(root.path().join("README.md")).unwrap(),
        filled
    );
}

#[test]
fn other_results_replace_those_of_the_same_name_only() {
    let readme = "<!-- report: speed benches/results/x/cpu.jsonl a -->\n<!-- end of report -->\n\
                  <!-- report: speed benches/results/x/gpu.jsonl g -->\n<!-- end of report -->\n";
    let root = repository(readme);
    write(root.path(), "x/cpu.jsonl", &rows("a"));
    write(root.path(), "x/gpu.jsonl", &rows("g"));
    write(root.path(), "y/cpu.jsonl", &[rows("b"), rows("c")].concat());
    let show = |run_id: Option<&str>| {
        let results = Some("benches/results/y/cpu.jsonl".into());
        run(
            root.path(),
            &ReportArgs {
                results,
                run: run_id.map(str::to_owned),
            },
        )
        .unwrap();
        fs::read_to_string(root.path().join("README.md")).unwrap()
    };
    let filled = show(Some("b"));
    assert!(
        filled.contains("report: speed benches/results/y/cpu.jsonl b -->"),
        "{filled}"
    );
    assert!(
        filled.contains("report: speed benches/results/x/gpu.jsonl g -->"),
        "{filled}"
    );
    // Without a name, the last run of the file.
    assert!(show(None).contains("report: speed benches/results/y/cpu.jsonl c -->"));
}

#[test]
fn markers_that_mean_nothing_are_errors() {
    let broken = [
        (
            "<!-- report: speed benches/results/none.jsonl a -->\n<!-- end of report -->",
            "none.jsonl",
        ),
        (
            "<!-- report: colour benches/results/x/cpu.jsonl a -->\n<!-- end of report -->",
            "time-by-length",
        ),
        (
            "<!-- report: speed -->\n<!-- end of report -->",
            "a results file",
        ),
        (
            "<!-- report: speed benches/results/x/cpu.jsonl a -->\n",
            "end of report",
        ),
        (
            "<!-- report: speed benches/results/x/cpu.jsonl z -->\n<!-- end of report -->",
            "no rows",
        ),
    ];
    for (readme, said) in broken {
        let root = repository(readme);
        write(root.path(), "x/cpu.jsonl", &rows("a"));
        let error = format!("{:#}", run(root.path(), &UNCHANGED).unwrap_err());
        assert!(error.contains(said), "{readme}: {error}");
        assert_eq!(
            fs::read_to_string(root.path().join("README.md")).unwrap(),
            readme
        );
    }
}

#[test]
fn a_report_finds_the_list_beside_the_rows() {
    let readme = "<!-- report: peers benches/results/x/gpu.jsonl g -->\n<!-- end of report -->\n";
    let root = repository(readme);
    write(root.path(), "x/gpu.jsonl", &gpu_rows("g"));
    let show = || {
        run(root.path(), &UNCHANGED).unwrap();
        fs::read_to_string(root.path().join("README.md")).unwrap()
    };
    assert!(show().contains("no list"));
    let of = json!({"run": "g", "provider": "dkernel", "problem": "s1024_v8", "pass": "backward", "reason": "out of luck"});
    let of: LeftOut = serde_json::from_value(of).unwrap();
    of.append(&root.path().join("benches/results/x/gpu.left-out.jsonl"))
        .unwrap();
    assert!(show().contains("- dkernel, backward (`s1024_v8`): out of luck"));
}
