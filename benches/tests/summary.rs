//! What follows from the rows of one run.

mod common;

use common::{dense, matmul, sparse};
use s2_bench::record::{Engine, Pass, Row};
use s2_bench::summary::{
    BURN_ATTENTION, S2_ATTENTION, SDPA_FLASH, dense_baseline, points, summarize,
};

#[test]
fn speed_ups_and_shares() {
    let rows = [
        matmul(0.2),
        dense(BURN_ATTENTION, 8000.0),
        dense(S2_ATTENTION, 2000.0),
        sparse(625.0),
    ];
    let lines = summarize(&rows, BURN_ATTENTION).unwrap();
    assert_eq!(lines.len(), 3, "the yardstick is no line of its own");
    let line = &lines[2];
    assert_eq!(line.speedup, Some(8000.0 / 625.0));
    // Our own dense time is 2000: a quarter of the pairs ideally takes 500.
    assert_eq!(line.ideal_share, Some(500.0 / 625.0));
    assert_eq!(line.matmul_share, Some(0.5));
    assert_eq!(lines[1].speedup, Some(4.0));
    assert_eq!(lines[1].ideal_share, Some(1.0));
}

#[test]
fn only_the_same_shape_and_pass_is_compared() {
    let other = |change: fn(&mut Row)| {
        let mut row = dense(BURN_ATTENTION, 8000.0);
        change(&mut row);
        row
    };
    let changes: [fn(&mut Row); 4] = [
        |row| row.pass = Pass::Backward,
        |row| row.seq_kv = 4096,
        |row| row.kv_heads = 2,
        |row| row.density = 0.5,
    ];
    for change in changes {
        let rows = [other(change), sparse(625.0)];
        let lines = summarize(&rows, BURN_ATTENTION).unwrap();
        assert_eq!(lines[1].speedup, None, "{:?}", rows[0]);
        assert!(lines[1].baseline.is_none() && lines[1].matmul_share.is_none());
    }
}

#[test]
fn rows_of_different_runs_are_refused() {
    let rows = [
        dense(BURN_ATTENTION, 8000.0),
        Row {
            run: "run-2".to_owned(),
            ..sparse(625.0)
        },
    ];
    let error = summarize(&rows, BURN_ATTENTION).unwrap_err();
    assert_eq!(
        (error.what, &error.seen[..]),
        ("runs", &["run-1".to_owned(), "run-2".to_owned()][..])
    );
    assert!(error.to_string().contains("run-1, run-2"), "{error}");
}

#[test]
fn a_run_is_of_one_device_and_one_commit() {
    for what in ["devices", "commits"] {
        let mut other = sparse(625.0);
        match what {
            "devices" => other.device = "another".to_owned(),
            _ => other.commit = "another".to_owned(),
        }
        let rows = [dense(BURN_ATTENTION, 8000.0), other];
        let error = points(&rows).unwrap_err();
        assert_eq!((error.what, error.seen.len()), (what, 2));
        assert!(summarize(&rows, BURN_ATTENTION).is_err());
    }
}

#[test]
fn of_equal_rows_the_fastest_counts() {
    let rows = [
        dense(S2_ATTENTION, 2100.0),
        sparse(700.0),
        dense(S2_ATTENTION, 2000.0),
        sparse(625.0),
        sparse(650.0),
    ];
    let times: Vec<f64> = points(&rows)
        .unwrap()
        .iter()
        .map(|row| row.median_us)
        .collect();
    assert_eq!(times, [2000.0, 625.0]);
    let lines = summarize(&rows, S2_ATTENTION).unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1].speedup, Some(2000.0 / 625.0));
}

/// Another engine is another point, and is compared with its own dense attention.
#[test]
fn engines_of_one_run_stay_apart() {
    let unit = |row: Row| Row {
        engine: Some(Engine::Unit),
        ..row
    };
    let rows = [
        dense(S2_ATTENTION, 2000.0),
        unit(dense(S2_ATTENTION, 4000.0)),
        sparse(625.0),
        unit(sparse(1250.0)),
    ];
    let lines = summarize(&rows, S2_ATTENTION).unwrap();
    let shares: Vec<_> = lines.iter().map(|line| line.ideal_share).collect();
    assert_eq!(shares, [Some(1.0), Some(1.0), Some(0.8), Some(0.8)]);
    // Where it has none, with that of the others.
    let lines = summarize(&rows[2..], S2_ATTENTION).unwrap();
    assert_eq!(lines[0].ideal_share, None);
    let rows = [rows[0].clone(), rows[3].clone()];
    assert_eq!(
        summarize(&rows, S2_ATTENTION).unwrap()[1].ideal_share,
        Some(0.4)
    );
}

#[test]
fn the_field_is_the_baseline_where_it_was_timed() {
    let mut rows = vec![sparse(625.0)];
    for provider in [S2_ATTENTION, BURN_ATTENTION, SDPA_FLASH] {
        rows.push(dense(provider, 2000.0));
        assert_eq!(dense_baseline(&rows), provider);
    }
}

/// A local window as long as the sequence leaves nothing out, but it is not what dense attention takes.
#[test]
fn a_pattern_that_covers_everything_is_no_baseline() {
    let covering = Row {
        density: 1.0,
        ..sparse(100.0)
    };
    let rows = [covering, dense(S2_ATTENTION, 2000.0)];
    let lines = summarize(&rows, S2_ATTENTION).unwrap();
    assert_eq!(lines[0].speedup, Some(20.0));
}

#[test]
fn host_time_is_compared_with_nothing() {
    for pass in [Pass::HostForward, Pass::HostOperation] {
        let rows =
            [dense(S2_ATTENTION, 8.0), sparse(8.0), matmul(0.2)].map(|row| Row { pass, ..row });
        let lines = summarize(&rows, S2_ATTENTION).unwrap();
        assert_eq!(lines.len(), 2);
        for line in lines {
            assert!(line.speedup.is_none() && line.ideal_share.is_none());
            assert!(line.matmul_share.is_none());
        }
        // Nor does the host's part of a product stand for what the device computes.
        let rows = [
            sparse(8.0),
            Row {
                pass,
                ..matmul(0.0)
            },
        ];
        let lines = summarize(&rows, S2_ATTENTION).unwrap();
        assert!(lines[0].matmul_share.is_none());
    }
}
