//! Which checkpoints are kept, and which one a run continues from.
//!
//! Burn writes the model, the optimizer and the schedule of an interval to three files, each of
//! them whole or not at all (written beside and renamed), but on three threads: a killed run can
//! leave some of the three.

use std::{fs, io, path::Path};

use burn::{
    optim::{OptimizerRecord, lr_scheduler::LrSchedulerRecord},
    store::ModuleRecord,
    train::{
        checkpoint::{CheckpointingAction, CheckpointingStrategy},
        metric::store::{Aggregate, Direction, EventStoreClient, Split},
    },
};

use crate::run_dir::RunDir;

/// Keeps the two newest checkpoints and the one with the lowest validation loss.
///
/// Unlike Burn's strategies, it remembers nothing and so does the same in a resumed run.
#[derive(Clone, Copy, Debug)]
pub struct KeepNewestAndBest;

impl CheckpointingStrategy for KeepNewestAndBest {
    fn checkpointing(
        &mut self,
        interval: usize,
        store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let best = best_interval(store);
        let old = (1..interval.saturating_sub(1)).filter(|&old| Some(old) != best);
        [CheckpointingAction::Save]
            .into_iter()
            .chain(old.map(CheckpointingAction::Delete))
            .collect()
    }
}

/// The interval with the lowest validation loss so far, counted from 1.
pub fn best_interval(store: &EventStoreClient) -> Option<usize> {
    store.find_epoch("Loss", Aggregate::Mean, Direction::Lowest, &Split::Valid)
}

/// The newest interval whose three files are there and can be read, and notes on those passed over.
///
/// # Errors
///
/// Where the folder cannot be read.
pub fn newest_complete(folder: &Path) -> io::Result<(Option<usize>, Vec<String>)> {
    let mut intervals: Vec<usize> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let interval: Option<usize> = name.to_str().and_then(|name| {
            let (_, interval) = name.strip_suffix(".bpk")?.rsplit_once('-')?;
            interval.parse().ok()
        });
        intervals.extend(interval);
    }
    intervals.sort_unstable();
    intervals.dedup();
    let mut skipped = Vec::new();
    while let Some(interval) = intervals.pop() {
        match check(folder, interval) {
            Ok(()) => return Ok((Some(interval), skipped)),
            Err(why) => skipped.push(format!("checkpoint {interval} is incomplete ({why})")),
        }
    }
    Ok((None, skipped))
}

fn check(folder: &Path, interval: usize) -> Result<(), String> {
    let file = |part: &str| folder.join(format!("{part}-{interval}.bpk"));
    let readable =
        |part: &str, result: Result<(), String>| result.map_err(|error| format!("{part}: {error}"));
    readable(
        "model",
        ModuleRecord::load(file("model"))
            .map(drop)
            .map_err(|e| e.to_string()),
    )?;
    readable(
        "optimizer",
        OptimizerRecord::load(file("optim"))
            .map(drop)
            .map_err(|e| e.to_string()),
    )?;
    readable(
        "schedule",
        LrSchedulerRecord::load(file("scheduler"))
            .map(drop)
            .map_err(|e| e.to_string()),
    )
}

/// Removes what a killed run left half-written, and all that came after `interval`: logs,
/// checkpoints and the trained model.
///
/// # Errors
///
/// Where a file cannot be removed.
pub fn forget_after(run: &RunDir, interval: usize) -> io::Result<()> {
    if run.model().exists() {
        fs::remove_file(run.model())?;
    }
    let later = |name: &str| {
        name.rsplit_once('-')
            .and_then(|(_, rest)| rest.strip_suffix(".bpk").unwrap_or(rest).parse().ok())
            .is_some_and(|number: usize| number > interval)
    };
    for folder in [
        run.checkpoints(),
        run.path().join("train"),
        run.path().join("valid"),
    ] {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && later(&name) {
                fs::remove_dir_all(&path)?;
            } else if path.is_file() && (name.ends_with(".tmp") || later(&name)) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}
