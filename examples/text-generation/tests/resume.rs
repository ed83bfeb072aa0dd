//! A run that was killed and resumed gives what an unbroken run gives, bit for bit.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    store::ModuleRecord,
    tensor::{Device, Tensor},
};
use text_generation::{config::RunConfig, model::LanguageModel, training::newest_complete};

const INTERVALS: usize = 30;

/// A training of 30 intervals of 2 steps, or what resumes it.
fn text_generation(folder: &Path, run: &str, resume: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_text-generation"));
    command
        .current_dir(folder)
        .args([
            "train",
            "--run",
            run,
            "--device",
            "flex",
            "--sample-bytes",
            "4",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if resume {
        return {
            command.arg("--resume");
            command
        };
    }
    let options = "--corpus corpus.txt --context 32 --d-model 16 --layers 2 --heads 2 --block-size 4 \
                   --local-blocks 2 --vert-stride 2 --batch 2 --steps 60 --interval 2 --warmup 4 --valid-bytes 128";
    command.args(options.split_whitespace());
    command
}

fn corpus(folder: &Path) {
    let lines = (0..600).map(|i| {
        format!(
            "line {i}: {} times {} is {}\n",
            i % 7,
            i % 11,
            (i % 7) * (i % 11)
        )
    });
    fs::write(folder.join("corpus.txt"), lines.collect::<String>()).unwrap();
}

/// Losses of all steps and validations, as written.
fn losses(run: &Path) -> Vec<String> {
    let log = |split: &str, interval| {
        fs::read_to_string(run.join(format!("{split}/epoch-{interval}/Loss.log"))).unwrap()
    };
    (1..=INTERVALS)
        .flat_map(|interval| [log("train", interval), log("valid", interval)])
        .collect()
}

/// All parameters, in order.
fn parameters(run: &Path) -> Vec<Vec<f32>> {
    struct Collect(Vec<Vec<f32>>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data().try_to_vec().unwrap());
        }
    }
    let config = RunConfig::load(&run.join("config.json")).unwrap();
    let model = LanguageModel::new(&config, &Device::flex()).unwrap();
    let model = model.load_record(ModuleRecord::load(run.join("model.bpk")).unwrap());
    let mut all = Collect(Vec::new());
    model.visit(&mut all);
    all.0
}

#[test]
fn killed_and_resumed_equals_unbroken() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    corpus(folder);
    let run = |name: &str| folder.join("artifacts").join(name);

    assert!(
        text_generation(folder, "unbroken", false)
            .status()
            .unwrap()
            .success()
    );
    for file in ["loss.svg", "patterns.svg", "report.md", "model.bpk"] {
        assert!(run("unbroken").join(file).is_file(), "{file}");
    }

    let mut child = text_generation(folder, "killed", false).spawn().unwrap();
    while !run("killed").join("checkpoint/scheduler-5.bpk").exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it could be killed"
        );
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !run("killed").join("model.bpk").exists(),
        "it ended before it was killed"
    );
    let (done, _) = newest_complete(&run("killed").join("checkpoint")).unwrap();
    assert!((4..INTERVALS).contains(&done.unwrap()), "{done:?}");

    assert!(
        text_generation(folder, "killed", true)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(losses(&run("killed")), losses(&run("unbroken")));
    assert_eq!(parameters(&run("killed")), parameters(&run("unbroken")));

    // The newest checkpoint is damaged: the one before it is continued, to the same end.
    let damaged = run("killed").join(format!("checkpoint/optim-{INTERVALS}.bpk"));
    fs::write(&damaged, &fs::read(&damaged).unwrap()[..1000]).unwrap();
    let resumed = text_generation(folder, "killed", true)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&resumed.stderr);
    assert!(
        messages.contains("checkpoint 30 is incomplete"),
        "{messages}"
    );
    assert!(
        messages.contains("continuing after interval 29"),
        "{messages}"
    );
    assert_eq!(losses(&run("killed")), losses(&run("unbroken")));
    assert_eq!(parameters(&run("killed")), parameters(&run("unbroken")));
}

#[test]
fn a_run_that_patience_ended_is_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    corpus(folder);
    // So large a step that the loss soon rises.
    let options = ["--patience", "2", "--learning-rate", "0.3"];
    assert!(
        text_generation(folder, "run", false)
            .args(options)
            .status()
            .unwrap()
            .success()
    );
    let run = folder.join("artifacts/run");
    let (done, _) = newest_complete(&run.join("checkpoint")).unwrap();
    let done = done.unwrap();
    assert!((3..INTERVALS).contains(&done), "{done}");
    let trained = parameters(&run);

    // Killed between its last checkpoint and its results.
    for file in ["model.bpk", "report.md", "loss.svg"] {
        fs::remove_file(run.join(file)).unwrap();
    }
    assert!(
        text_generation(folder, "run", true)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(parameters(&run), trained, "the best interval's weights");
    assert!(!run.join(format!("train/epoch-{}", done + 1)).exists());
    assert!(run.join("report.md").is_file() && run.join("loss.svg").is_file());
}

#[test]
fn a_run_is_not_overwritten_nor_resumed_on_other_text() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    corpus(folder);
    let error = |mut command: Command| {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(error(text_generation(folder, "run", true)).contains("there is no run"));
    assert!(
        text_generation(folder, "run", false)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    assert!(error(text_generation(folder, "run", false)).contains("--resume"));
    fs::write(folder.join("corpus.txt"), "other text ".repeat(1000)).unwrap();
    assert!(error(text_generation(folder, "run", true)).contains("the corpus has changed"));
}
