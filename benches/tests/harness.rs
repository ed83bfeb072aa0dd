//! Timing.

use std::cell::Cell;
use std::thread::sleep;
use std::time::Duration;

use s2_bench::harness::{Effort, MOST_RUNS, TooSlow, measure, measure_host, sample};

const EFFORT: Effort = Effort {
    runs: 5,
    untimed: 0,
    warm_up: Duration::ZERO,
    measured: Duration::ZERO,
    limit: Duration::from_secs(60),
};

#[test]
fn only_the_call_itself_is_timed() {
    struct SlowToDrop;
    impl Drop for SlowToDrop {
        fn drop(&mut self) {
            sleep(Duration::from_millis(50));
        }
    }
    let slow_input = || sleep(Duration::from_millis(50));
    let timing = measure(&EFFORT, slow_input, |()| {
        sleep(Duration::from_millis(2));
        SlowToDrop
    });
    let timing = timing.unwrap();
    assert_eq!(timing.runs, 5);
    assert!(timing.min >= Duration::from_millis(2) && timing.median >= timing.min);
    assert!(timing.min < Duration::from_millis(50), "{timing:?}");
}

#[test]
fn short_calls_are_repeated_until_enough_is_measured() {
    let effort = Effort {
        measured: Duration::from_millis(30),
        ..EFFORT
    };
    let timing = measure(&effort, || (), |()| sleep(Duration::from_millis(1))).unwrap();
    assert!(timing.runs > 5, "{timing:?}");
}

/// Kernels are compiled and tuned when they are first called, which says nothing about the calls that follow.
#[test]
fn untimed_calls_are_not_held_to_the_limit() {
    let of_untimed = |untimed| {
        let effort = Effort {
            untimed,
            limit: Duration::from_millis(250),
            ..EFFORT
        };
        let mut calls = 0;
        let timing = measure(
            &effort,
            || (),
            |()| {
                calls += 1;
                sleep(Duration::from_millis(if calls == 1 { 60 } else { 1 }));
            },
        );
        (timing.is_ok(), calls)
    };
    assert_eq!(of_untimed(0), (false, 1));
    assert_eq!(of_untimed(1), (true, 1 + 1 + EFFORT.runs));
}

#[test]
fn a_call_that_would_take_too_long_is_refused_after_one_run() {
    let effort = Effort {
        limit: Duration::from_millis(20),
        ..EFFORT
    };
    let mut calls = 0;
    let error = measure(
        &effort,
        || (),
        |()| {
            calls += 1;
            sleep(Duration::from_millis(10));
        },
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("5 runs") && error.contains("--limit"),
        "{error}"
    );
    assert_eq!(calls, 1);
}

#[test]
fn very_short_calls_are_not_repeated_for_ever() {
    let effort = Effort {
        measured: Duration::from_secs(60),
        ..EFFORT
    };
    assert_eq!(measure(&effort, || (), |()| ()).unwrap().runs, MOST_RUNS);
    let times = sample(&EFFORT, || Ok::<_, ()>(Duration::from_secs(1))).unwrap();
    assert_eq!(times.len(), 5);
    assert_eq!(
        sample(&EFFORT, || Err::<Duration, _>("broken")),
        Err("broken")
    );
}

#[test]
fn the_host_is_timed_without_its_waiting() {
    let (waits, calls, flushes) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let count = |of: &Cell<usize>| of.set(of.get() + 1);
    let timing = measure_host(
        &EFFORT,
        || {
            // The device is slow.
            if calls.get() < 50 {
                sleep(Duration::from_millis(5));
            }
            count(&waits);
            Ok::<_, TooSlow>(())
        },
        || {
            count(&calls);
            Ok(())
        },
        || {
            count(&flushes);
            Ok(())
        },
    );
    let timing = timing.unwrap();
    assert_eq!((timing.runs, timing.peak_bytes), (1000, None));
    assert!(timing.median < Duration::from_millis(1), "{timing:?}");
    // 16 calls before each flush; two runs and a tenth as many as are timed come first.
    assert_eq!((calls.get(), flushes.get()), (1102 * 16, 1102));
    assert!(waits.get() >= 1102);
}

#[test]
fn calls_that_would_take_too_long_are_not_timed() {
    let short = Effort {
        limit: Duration::from_secs(1),
        ..EFFORT
    };
    let calls = Cell::new(0);
    let timing = measure_host(
        &short,
        || Ok(()),
        || {
            calls.set(calls.get() + 1);
            sleep(Duration::from_millis(1));
            Ok(())
        },
        || Ok(()),
    );
    let error: TooSlow = timing.unwrap_err();
    assert!(error.to_string().starts_with("1000 runs of "), "{error}");
    assert_eq!(calls.get(), 2 * 16);
}
