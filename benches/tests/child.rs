//! Points in processes of their own.

use std::process::Command;
use std::time::{Duration, Instant};

use s2_bench::providers::child::finish_within;

fn shell(commands: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", commands]);
    command
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn output_is_returned_however_long() {
    let output = finish_within(&mut shell("head -c 300000 /dev/zero; echo done"), LONG).unwrap();
    assert!(output.len() > 300_000 && output.ends_with("done\n"));
}

#[test]
fn a_process_that_hangs_is_ended() {
    let start = Instant::now();
    let error = finish_within(&mut shell("exec sleep 50"), Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().contains("ended after 100ms"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_process_that_fails_says_why() {
    let error = finish_within(&mut shell("echo a >&2; echo reason >&2; exit 4"), LONG).unwrap_err();
    assert!(
        error.to_string().ends_with("reason") && error.to_string().contains('4'),
        "{error}"
    );
}
