//! The GPU providers of `s2-bench bench`. Without a device there is nothing to run, unless `S2_REQUIRE_GPU` asks for one.

#[path = "common/device.rs"]
mod device;

use s2_bench::record::{Backend, Engine, Pass, Record, Row};
use s2_bench::summary::{BURN_MATMUL, S2_ATTENTION};

use device::{s2_bench, stderr};

const PROBLEM: &str = "b1_h2kv1_s128_d32_f32_blk32_l1_v2";
/// Whether Burn runs on the GPU in this program.
const HAS_BURN: bool = cfg!(any(
    feature = "cuda",
    feature = "cuda-cpp",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
));

const SMALL: &str = "b1_h1_s16_d8_f32_blk8_l1_v2";
const DENSE: &str = "b1_h2kv1_s128_d32_f32_dense";

/// The backend that this program was built for; `bench` takes the CPU unless it is told.
fn backend() -> Option<String> {
    let output = s2_bench(&["bench", "--backend", "rocm", "--problems", PROBLEM])?;
    let error = stderr(&output);
    let built = error
        .split("built for ")
        .nth(1)
        .map_or("rocm", |rest| rest.split(' ').next().unwrap_or_default());
    Some(built.to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_pass_leaves_a_row_with_time_memory_and_engine() {
    let Some(backend) = backend() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let bench = |problems: &str| {
        let problems = ["--problems", problems, "--runs", "2"];
        let passes = ["--passes", "forward,backward,forward-backward"];
        let file = [
            "--out",
            file.to_str().unwrap(),
            "--run",
            "r1",
            "--commit",
            "c1",
        ];
        let who = ["--backend", &backend, "--providers", S2_ATTENTION];
        s2_bench(&[&["bench"], &problems[..], &passes, &file, &who].concat()).unwrap()
    };
    for problems in [DENSE, PROBLEM] {
        let output = bench(problems);
        assert!(output.status.success(), "{}", stderr(&output));
        if problems == PROBLEM {
            // The table is of the whole run, not of this command alone.
            let screen = text(&output.stdout);
            assert!(
                screen.contains(DENSE) && screen.contains("our own dense"),
                "{screen}"
            );
        }
    }
    let rows = Row::read(&file).unwrap();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        assert_eq!((row.run.as_str(), row.commit.as_str()), ("r1", "c1"));
        assert!(row.engine == Some(Engine::Unit) && row.backend != Backend::Flex);
        assert!(row.median_us > 0.0 && row.runs >= 2 && row.useful_tflops > 0.0);
    }
    let peak = |pass: Pass| {
        let row = rows
            .iter()
            .find(|row| row.problem == PROBLEM && row.pass == pass);
        row.unwrap().peak_bytes.unwrap()
    };
    // 2 query heads and 1 key head of 128 tokens, 32 elements of 4 bytes: out and lse; dQ, dK, dV and two statistics of
    // each query. A runtime may round each up.
    let (tensor, words) = (128 * 32 * 4, 128 * 4);
    let (forward, backward) = (2 * (tensor + words), 2 * tensor + 2 * tensor + 4 * words);
    let room = 4096;
    assert!((forward..forward + room).contains(&peak(Pass::Forward)));
    assert!((backward..backward + room).contains(&peak(Pass::Backward)));
    assert!((forward + backward..forward + backward + room).contains(&peak(Pass::ForwardBackward)));
}

/// In 2 bytes the forward pass of training writes one tensor more than that of inference: what rounding loses.
#[test]
fn forward_and_backward_together_are_those_of_training() {
    let Some(backend) = backend() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let problem = PROBLEM.replace("f32", "f16");
    let what = ["bench", "--backend", &backend, "--problems", &problem];
    let how = ["--passes", "forward,backward,forward-backward"];
    let who = ["--providers", S2_ATTENTION, "--runs", "2", "--out"];
    let output = s2_bench(&[&what[..], &how, &who, &[file.to_str().unwrap()]].concat()).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let screen = text(&output.stdout);
    if screen.contains("left out: ") {
        eprintln!("not held, the device has no f16: {screen}");
        return;
    }
    let rows = Row::read(&file).unwrap();
    let peak = |pass: Pass| {
        let row = rows.iter().find(|row| row.pass == pass);
        row.unwrap().peak_bytes.unwrap()
    };
    // As above, in 2 bytes; statistics stay in 4.
    let (tensor, words) = (128 * 32 * 2, 128 * 4);
    let (forward, backward) = (2 * (tensor + words), 2 * tensor + 2 * tensor + 4 * words);
    let training = forward + 2 * tensor + backward;
    let room = 4096;
    assert!((forward..forward + room).contains(&peak(Pass::Forward)));
    assert!((backward..backward + room).contains(&peak(Pass::Backward)));
    assert!((training..training + room).contains(&peak(Pass::ForwardBackward)));
}

/// Where Burn is in the program for this backend; its product is timed the same way, as long as that takes no longer than it may.
#[test]
fn the_host_is_timed_through_burn() {
    let Some(backend) = backend() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let what = ["bench", "--backend", &backend, "--problems", SMALL];
    let how = ["--passes", "host-operation", "--providers", S2_ATTENTION];
    let output = s2_bench(&[&what[..], &how, &["--out", file.to_str().unwrap()]].concat()).unwrap();
    let said = format!("{}{}", text(&output.stdout), stderr(&output));
    assert!(output.status.success(), "{said}");
    if !HAS_BURN {
        assert!(!file.exists(), "{said}");
        assert!(said.contains("does not run on"), "{said}");
        return;
    }
    let rows = Row::read(&file).unwrap();
    assert_eq!(rows.len(), 1, "{said}");
    let row = &rows[0];
    let seen = (row.pass, row.engine, row.runs);
    assert_eq!(seen, (Pass::HostOperation, Some(Engine::Unit), 1000));
    assert!(row.median_us > 0.0 && row.useful_tflops == 0.0 && row.peak_bytes.is_none());

    let what = ["point", "--provider", BURN_MATMUL, "--size", "16"];
    let how = ["--pass", "host-operation", "--backend", &backend];
    let effort = ["--runs", "5", "--limit", "0.001"];
    let refused = stderr(&s2_bench(&[&what[..], &how, &effort].concat()).unwrap());
    assert!(refused.contains("1000 runs of "), "{refused}");
}

#[test]
fn what_the_kernels_do_not_run_is_left_out_with_a_reason() {
    let Some(backend) = backend() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().to_str().unwrap();
    let problem = "b1_h2_s64_d30_f32_blk16_l1_v2";
    let arguments = ["bench", "--backend", &backend, "--problems", problem];
    let rest = [
        "--results",
        results,
        "--providers",
        S2_ATTENTION,
        "--passes",
        "forward",
    ];
    let output = s2_bench(&[&arguments[..], &rest].concat()).unwrap();
    let screen = text(&output.stdout);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        screen.contains("left out: burn-s2-attention") && screen.contains("0 rows"),
        "{screen}"
    );
}

#[test]
fn the_engine_that_is_asked_for_is_timed() {
    let Some(backend) = backend() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let bench = |engine: &str| {
        let what = ["bench", "--backend", &backend, "--problems", PROBLEM];
        let how = ["--passes", "forward", "--runs", "2", "--engine", engine];
        let who = ["--providers", S2_ATTENTION, "--out", file.to_str().unwrap()];
        s2_bench(&[&what[..], &how, &who].concat()).unwrap()
    };
    // f32 is for the engine of multiply-adds alone: tensor cores leave it out.
    for engine in ["unit", "mma"] {
        let output = bench(engine);
        assert!(output.status.success(), "{}", stderr(&output));
        let screen = text(&output.stdout);
        assert_eq!(screen.contains("left out: "), engine == "mma", "{screen}");
    }
    let rows = Row::read(&file).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].engine, Some(Engine::Unit));
    let output = bench("flex");
    assert!(!output.status.success() && stderr(&output).contains("--engine flex"));
}

#[test]
fn a_problem_that_is_none_is_refused() {
    let Some(output) = s2_bench(&["kernels", "b1_h2_s64"]) else {
        return;
    };
    assert!(!output.status.success() && stderr(&output).contains("b1_h2_s64"));
}
