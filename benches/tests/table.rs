//! The table on the screen.

mod common;

use common::{dense, matmul, sparse};
use s2_bench::record::{Backend, Engine, Pass, Row};
use s2_bench::summary::{BURN_ATTENTION, S2_ATTENTION, SDPA_FLASH};
use s2_bench::table::render;

/// The cells of the lines of a provider.
fn lines(table: &str, provider: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.split(['│', '┆']).map(|cell| cell.trim().to_owned());
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    table
        .lines()
        .map(cells)
        .filter(|cells| cells.get(2).is_some_and(|cell| cell.starts_with(provider)))
        .collect()
}

#[test]
fn points_stand_beside_burns_dense_attention() {
    let rows = [
        matmul(0.2),
        dense(BURN_ATTENTION, 8000.0),
        dense(S2_ATTENTION, 2000.0),
        sparse(625.0),
    ];
    let table = render(&rows).unwrap();
    let ours = lines(&table, S2_ATTENTION);
    assert_eq!(
        ours[1],
        [
            "b1_h8_s2048_d64_f32_blk64_l4_v8",
            "forward",
            "burn-s2-attention (flex)",
            "0.250",
            "0.625",
            "8.000",
            "12.80x",
            "80 %",
            "0.100",
            "50 %",
            "1.0"
        ]
    );
    assert!(lines(&table, BURN_ATTENTION).is_empty(), "{table}");
    assert!(table.contains("dense ms: Burn's dense"), "{table}");
    assert!(
        table.contains("matmul_4096_f32 runs at 0.200 TFLOP/s"),
        "{table}"
    );
}

#[test]
fn peers_have_lines_of_their_own_beside_flash_attention() {
    let peer = |provider: &str, median_us: f64| Row {
        provider: provider.to_owned(),
        engine: None,
        backend: Backend::Torch,
        ..sparse(median_us)
    };
    let host = Row {
        pass: Pass::HostForward,
        useful_tflops: 0.0,
        ..sparse(15.0)
    };
    let rows = [
        dense(SDPA_FLASH, 9000.0),
        Row {
            engine: Some(Engine::Mma),
            ..sparse(300.0)
        },
        peer("dkernel", 450.0),
        host,
    ];
    let table = render(&rows).unwrap();
    assert_eq!(lines(&table, "burn-s2-attention (mma)")[0][6], "30.00x");
    assert_eq!(lines(&table, "dkernel")[0][6], "20.00x");
    assert!(table.contains("dense ms: FlashAttention-2"), "{table}");
    let host = &lines(&table, S2_ATTENTION)[1];
    assert_eq!(host[4..10], ["0.015", "-", "-", "-", "-", "-"]);
}

#[test]
fn rows_of_different_runs_are_refused() {
    let other = Row {
        run: "run-2".to_owned(),
        ..sparse(1.0)
    };
    assert!(render(&[sparse(1.0), other]).is_err());
}
