//! Providers in Python: the mask that they are given, and what is read of what they print.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use s2_bench::harness::Effort;
use s2_bench::left_out::{LONGEST_REASON, LeftOut};
use s2_bench::machine::Machine;
use s2_bench::peers::{Outcome, Script, Who};
use s2_bench::problems::Problem;
use s2_bench::providers::Provider;
use s2_bench::record::{Backend, Pass, Record, Row};
use s2_bench::session::Session;

const EFFORT: Effort = Effort {
    runs: 20,
    untimed: 1,
    warm_up: Duration::ZERO,
    measured: Duration::ZERO,
    limit: Duration::from_secs(60),
};

fn problem(name: &str) -> Problem {
    name.parse().unwrap()
}

fn baselines() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baselines")
}

/// Whether there is a Python; `S2_REQUIRE_PYTHON` asks for one.
fn has_python() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok();
    let required = std::env::var_os("S2_REQUIRE_PYTHON").is_some();
    assert!(there || !required, "there is no python3");
    if !there {
        eprintln!("not held: there is no python3");
    }
    there
}

/// The pairs that the script's own rule counts.
fn counted(points: &str) -> String {
    let mut child = Command::new("python3")
        .arg("-B")
        .arg(baselines().join("pattern.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(points.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_mask_of_the_peers_has_the_pairs_of_the_pattern() {
    if !has_python() {
        return;
    }
    let names = [
        "b1_h16_s2048_d64_bf16_dense",
        "b2_h8kv2_s2048_d64_bf16_dense",
        "b2_h16_s2048_d128_bf16_blk64_l4_v16",
        "b1_h4_s2048_d128_bf16_blk64_l2_v16",
        "b1_h32kv8_s2048_d128_bf16_blk32_l3_v8",
        "b1_h3_s1024_d128_bf16_blk16_l1_v7",
        "b2_h32kv8_s2048_d128_bf16_blk64_l4_v8_perkv",
        "b1_h8kv2_s4096_d128_bf16_blk64_l1_v40_perkv",
    ];
    let mut points = Vec::new();
    let mut pairs = Vec::new();
    for problem in names.map(problem) {
        for pass in [Pass::Forward, Pass::Decode] {
            let point = problem.point(pass).unwrap();
            points.push(serde_json::to_string(&point).unwrap());
            pairs.push(point.pairs.to_string());
        }
    }
    let counted = counted(&points.join("\n"));
    assert_eq!(counted.lines().collect::<Vec<_>>(), pairs);
}

#[test]
fn providers_are_chosen_with_and_without_baselines() {
    let chosen = |providers: &[Provider], baselines: Option<&str>| {
        let who = Who {
            providers: providers.to_vec(),
            baselines: baselines.map(str::to_owned),
            script: "bench.py".into(),
        };
        let native = [Provider::S2];
        (
            who.chosen(&native, &Provider::DECODE_PEERS),
            who.script().python,
        )
    };
    let python = Some("a-python");
    let all = [&[Provider::S2], &Provider::DECODE_PEERS[..]].concat();
    assert_eq!(chosen(&[], None).0, [Provider::S2]);
    assert_eq!(chosen(&[], python), (all, "a-python".to_owned()));
    let named = [Provider::Dkernel, Provider::S2];
    assert_eq!(
        chosen(&named, python),
        (named.to_vec(), "a-python".to_owned())
    );
    assert_eq!(chosen(&named, None), (named.to_vec(), "python3".to_owned()));
}

/// What comes of a script in the shell that prints this.
fn outcomes(commands: &str) -> (Vec<String>, anyhow::Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.sh");
    std::fs::write(&path, commands).unwrap();
    let script = Script {
        python: "sh".to_owned(),
        path,
    };
    let problem = problem("b1_h2_s64_d16_bf16_dense");
    let points = [(&problem, Pass::Forward), (&problem, Pass::Backward)];
    let mut seen = Vec::new();
    let result = script.time(Provider::SdpaFlash, &points, &EFFORT, |outcome| {
        seen.push(match outcome {
            Outcome::Timed(problem, pass, timing, versions) => format!(
                "{} {pass} {:?} {:?} {} {:?} {versions:?}",
                problem.name, timing.median, timing.min, timing.runs, timing.peak_bytes
            ),
            Outcome::LeftOut(None, reason) => format!("left out: {reason}"),
            Outcome::LeftOut(Some((problem, pass)), reason) => {
                format!("left out: {} {pass}: {reason}", problem.name)
            }
        });
        Ok(())
    });
    (seen, result)
}

#[test]
fn times_and_reasons_are_read() {
    let (seen, result) = outcomes(
        r#"cat > /dev/null
        echo '{"kind": "versions", "versions": {"torch": "2.11"}}'
        echo '{"kind": "time", "problem": "b1_h2_s64_d16_bf16_dense", "pass": "forward", "median_us": 12.5, "min_us": 12, "runs": 20, "peak_bytes": 64}'
        echo '{"kind": "left-out", "problem": "b1_h2_s64_d16_bf16_dense", "pass": "backward", "reason": "not today"}'
        "#,
    );
    result.unwrap();
    assert_eq!(
        seen,
        [
            r#"b1_h2_s64_d16_bf16_dense forward 12.5µs 12µs 20 Some(64) {"torch": "2.11"}"#,
            "left out: b1_h2_s64_d16_bf16_dense backward: not today"
        ]
    );
}

#[test]
fn the_script_is_told_the_points_and_the_effort() {
    let (seen, result) = outcomes(
        r#"test "$*" = "--provider sdpa-flash --runs 20 --limit 60" || echo "arguments $*" >&2
        test "$(grep -c '"pairs":4160')" = 2 || echo points >&2
        exit 3"#,
    );
    result.unwrap();
    assert_eq!(seen, ["left out: its process failed (exit status: 3): "]);
}

#[test]
fn a_script_that_fails_says_why() {
    let (seen, result) = outcomes("echo first >&2; echo 'out of luck' >&2; exit 1");
    result.unwrap();
    assert_eq!(
        seen,
        ["left out: its process failed (exit status: 1): out of luck"]
    );
    let (_, result) = outcomes("echo 12 ms");
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("12 ms") && error.contains("no time"),
        "{error}"
    );
    let (_, result) = outcomes(
        r#"echo '{"kind": "time", "problem": "other", "pass": "forward", "median_us": 1, "min_us": 1, "runs": 1, "peak_bytes": 1}'"#,
    );
    assert!(result.unwrap_err().to_string().contains("not asked"));
}

/// What a session keeps of a script in the shell that is asked for forward and backward of one problem: rows, and what has none.
fn kept(commands: &str) -> (Vec<Pass>, Vec<LeftOut>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.sh");
    std::fs::write(&path, commands).unwrap();
    let script = Script {
        python: "sh".to_owned(),
        path,
    };
    let rows = folder.path().join("gpu.jsonl");
    let machine = Machine::gpu("a GPU".to_owned()).unwrap();
    let mut session =
        Session::start("r".to_owned(), rows.clone(), machine, Backend::CudaCpp).unwrap();
    assert_eq!(LeftOut::of_run(&rows, "r").unwrap(), Some(Vec::new()));
    let problem = problem("b1_h2_s64_d16_bf16_dense");
    let points = [(&problem, Pass::Forward), (&problem, Pass::Backward)];
    let mut done = 0;
    script
        .add_rows(Provider::SdpaFlash, &points, &EFFORT, &mut session, |_| {
            done += 1;
        })
        .unwrap();
    let timed = if rows.exists() {
        Row::read(&rows).unwrap()
    } else {
        Vec::new()
    };
    assert_eq!(LeftOut::of_run(&rows, "other").unwrap(), Some(Vec::new()));
    let left_out = LeftOut::of_run(&rows, "r").unwrap().unwrap();
    (timed.iter().map(|row| row.pass).collect(), left_out)
}

const TIMED: &str = r#"echo '{"kind": "time", "problem": "b1_h2_s64_d16_bf16_dense", "pass": "forward", "median_us": 12.5, "min_us": 12, "runs": 20, "peak_bytes": 64}'"#;

#[test]
fn every_point_has_a_row_or_a_reason() {
    let reason = |commands: &str, passes: &[Pass]| {
        let (timed, left_out) = kept(commands);
        let seen: Vec<Pass> = left_out.iter().map(|of| of.pass).collect();
        assert_eq!(seen, passes, "{left_out:?}");
        assert_eq!(timed.len() + seen.len(), 2);
        for of in &left_out {
            assert_eq!(
                (of.provider.as_str(), of.problem.as_str()),
                ("sdpa-flash", "b1_h2_s64_d16_bf16_dense")
            );
            assert_eq!(of.reason, left_out[0].reason);
        }
        left_out[0].reason.clone()
    };
    let both = [Pass::Forward, Pass::Backward];
    let of_all = r#"cat > /dev/null; echo '{"kind": "left-out", "problem": null, "pass": null, "reason": "not installed"}'"#;
    assert_eq!(reason(of_all, &both), "not installed");
    let of_one = format!(
        r#"cat > /dev/null; {TIMED}
        echo '{{"kind": "left-out", "problem": "b1_h2_s64_d16_bf16_dense", "pass": "backward", "reason": "not   today"}}'"#
    );
    assert_eq!(reason(&of_one, &[Pass::Backward]), "not today");
    let failed = format!("cat > /dev/null; {TIMED}; echo 'out of luck' >&2; exit 1");
    assert!(reason(&failed, &[Pass::Backward]).ends_with("out of luck"));
    assert!(reason("echo 12 ms", &both).contains("12 ms"));
    assert!(reason("cat > /dev/null", &both).contains("ended"));
    let long = "cat > /dev/null; printf '%01000d' 0 >&2; exit 1";
    assert_eq!(reason(long, &both).len(), LONGEST_REASON);
}

#[test]
fn what_is_not_installed_is_a_reason_and_no_row() {
    if !has_python() {
        return;
    }
    // With neither site packages nor those of the environment, whatever this machine has.
    let script = baselines().join("bench.py");
    let alone = format!("exec python3 -B -E -S '{}' \"$@\"", script.display());
    let (timed, left_out) = kept(&alone);
    assert_eq!(timed, []);
    let reasons: Vec<&str> = left_out.iter().map(|of| of.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["not installed: there is no Python module torch"; 2]
    );
}
