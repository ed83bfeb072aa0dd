mod documents;
mod plots;

use s2_bench::left_out::LeftOut;
use s2_bench::record::{Dtype, Row};
use serde_json::json;

use super::host::host;
use super::left_out::List;
use super::peers::{self, decode, headline, memory};
use super::plots::{speedup_by_density, time_by_length};
use super::tables::{points, speed};

/// What differs from row to row: the rest is one machine and one shape.
fn row(run: &str, provider: &str, pass: &str, seq: usize, stride: Option<usize>, ms: f64) -> Row {
    let problem = match stride {
        Some(stride) => format!("s{seq}_v{stride}"),
        None => format!("s{seq}_dense"),
    };
    let row = json!({
        "run": run, "provider": provider, "engine": null, "backend": "flex", "problem": problem, "pass": pass,
        "dtype": "f32", "batch": 1, "heads": 8, "kv_heads": 8, "seq_q": seq, "seq_kv": seq, "head_dim": 64,
        "block": stride.map(|_| 64), "local_blocks": stride.map(|_| 4), "vert_stride": stride, "causal": true,
        "pattern": "a pattern", "median_us": 1e3 * ms, "min_us": 1e3 * ms, "runs": 20, "peak_bytes": 3 << 20,
        "density": stride.map_or(1.0, |stride| 1.0 / stride as f64), "useful_tflops": 0.05,
        "device": "Test CPU, 2 threads", "driver": null, "date": "2026-01-02T03:04:05Z", "commit": "0123456789ab",
        "versions": {"burn": "0.22.1"},
    });
    serde_json::from_value(row).unwrap()
}

const OURS: &str = "burn-s2-attention";
const BURNS: &str = "burn-attention";

fn rows(run: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (pass, factor) in [("forward", 1.0), ("forward-backward", 4.0)] {
        for seq in [1024, 2048] {
            let ms = factor * (seq / 1024) as f64;
            rows.push(row(run, BURNS, pass, seq, None, 10.0 * ms));
            rows.push(row(run, OURS, pass, seq, None, 4.0 * ms));
            rows.push(row(run, OURS, pass, seq, Some(4), 1.25 * ms));
            rows.push(row(run, OURS, pass, seq, Some(8), 1.0 * ms));
        }
    }
    rows
}

/// The table of a run that kept no list of what it left out.
fn peers(rows: &[Row]) -> anyhow::Result<String> {
    peers::peers(rows, List(None))
}

/// Burn's product has a rate in a run that timed it on the device, and none where only the host's part of it was timed.
#[test]
fn the_rate_of_burns_product_is_that_of_the_device() {
    let says_a_rate = |passes: &[&str]| {
        let mut rows = rows("a");
        let product = |pass: &&str| row("a", "burn-matmul", pass, 4096, None, 1.0);
        rows.extend(passes.iter().map(product));
        points(&rows)
            .unwrap()
            .contains("matrix product runs at 0.050 TFLOP/s")
    };
    assert!(says_a_rate(&["forward"]));
    assert!(says_a_rate(&["host-operation", "forward"]));
    assert!(!says_a_rate(&["host-operation"]));
}

#[test]
fn the_short_table_shows_both_passes_at_each_length_of_one_pattern() {
    let mut rows = rows("a");
    rows.retain(|row| row.vert_stride != Some(4) || row.seq_kv == 1024);
    let table = speed(&rows).unwrap();
    let lines: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(
        lines,
        [
            "| 1024 | 12 % | 1.00 ms | 10.0x | 4.00 ms | 10.0x | 3 MiB | 3 MiB |",
            "| 2048 | 12 % | 2.00 ms | 10.0x | 8.00 ms | 10.0x | 3 MiB | 3 MiB |",
        ]
    );
    let about = "Pattern: block 64, local 4, stride 8; batch 1, 8 heads of 64. Medians of at least 20 runs, f32, \
                 on Test CPU, 2 threads (2026-01-02, commit 0123456789ab, burn 0.22.1).";
    assert!(table.ends_with(about), "{table}");
}

#[test]
fn the_long_table_shows_every_point_of_this_library() {
    let table = points(&rows("a")).unwrap();
    assert_eq!(
        table.lines().filter(|line| line.starts_with("| s")).count(),
        12,
        "{table}"
    );
    assert!(
        table.contains(
            "| s2048_v8 | forward | - | 0.125 | 2.00 ms | 20.00 ms | 10.0x | 50 % | 0.050 | - | 20 |"
        ),
        "{table}"
    );
}

#[test]
fn tables_and_plots_refuse_rows_of_different_runs() {
    let mixed = [rows("a"), rows("b")].concat();
    for view in [
        speed,
        points,
        peers,
        memory,
        host,
        decode,
        time_by_length,
        speedup_by_density,
    ] {
        assert!(view(&mixed).unwrap_err().to_string().contains("a, b"));
    }
}

/// A run on a GPU: FlashAttention-2 dense, another that computes the pattern, and this library.
fn gpu_rows(run: &str) -> Vec<Row> {
    let mut gpu = Vec::new();
    for ours in rows(run) {
        let seq = ours.seq_kv;
        let ms = ours.median_us / 1e3;
        let pass = ours.pass.to_string();
        match (ours.provider.as_str(), ours.vert_stride) {
            (BURNS, _) => gpu.push(row(run, "sdpa-flash", &pass, seq, None, 5.0 * ms)),
            (_, None) => gpu.push(ours),
            (_, stride) => {
                if pass == "forward" {
                    gpu.push(row(run, "dkernel", &pass, seq, stride, 1.5 * ms));
                }
                gpu.push(ours);
            }
        }
    }
    let host = row(run, OURS, "host-forward", 1024, Some(8), 0.015);
    gpu.push(host);
    gpu
}

#[test]
fn peers_stand_beside_this_library() {
    let table = peers(&gpu_rows("g")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0],
        "| problem | pass | engine | density | ours | of ideal | TFLOP/s | memory | sdpa-flash, dense | dkernel |"
    );
    for line in [
        "| s2048_v8 | forward | - | 0.125 | 2.00 ms | 50 % | 0.050 | 3 MiB | 100.00 ms (50.00x) | 3.00 ms (1.50x) |",
        "| s2048_v8 | forward-backward | - | 0.125 | 8.00 ms | 50 % | 0.050 | 3 MiB | 400.00 ms (50.00x) |  |",
        "| s1024_dense | forward | - | 1.000 | 4.00 ms | 100 % | 0.050 | 3 MiB | 50.00 ms (12.50x) |  |",
    ] {
        assert!(lines.contains(&line), "{line} in\n{table}");
    }
    assert!(!table.contains("host-forward"), "{table}");
    let alone: Vec<Row> = rows("a")
        .into_iter()
        .filter(|row| row.provider == OURS)
        .collect();
    assert!(peers(&alone).unwrap_err().to_string().contains("nobody"));
}

#[test]
fn memory_and_host_time_have_tables_of_their_own() {
    let mut rows = gpu_rows("g");
    for row in rows.iter_mut().filter(|row| row.provider == "dkernel") {
        row.peak_bytes = Some(6 << 20);
    }
    let table = memory(&rows).unwrap();
    for line in [
        "| problem | pass | engine | density | ours | sdpa-flash, dense | dkernel |",
        "| s2048_v8 | forward | - | 0.125 | 3 MiB | 3 MiB (1.00x) | 6 MiB (2.00x) |",
        "| s2048_v8 | forward-backward | - | 0.125 | 3 MiB | 3 MiB (1.00x) | - |",
    ] {
        assert!(table.lines().any(|seen| seen == line), "{line} in\n{table}");
    }
    rows.push(row("g", OURS, "host-operation", 1024, Some(8), 0.025));
    let table = host(&rows).unwrap();
    for line in [
        "| s1024_v8 | burn-s2-attention | - | kernels alone | 15.0 us | 15.0 us | 1.00 ms | 20 |",
        "| s1024_v8 | burn-s2-attention | - | through Burn | 25.0 us | 25.0 us | 1.00 ms | 20 |",
    ] {
        assert!(table.lines().any(|seen| seen == line), "{table}");
    }
    let none = host(&rows[..1]).unwrap_err().to_string();
    assert!(none.contains("no host time"), "{none}");
}

/// Two engines in a run: each has its line, its curve and its own dense attention; short tables show the faster one.
#[test]
fn engines_of_one_run_stand_beside_each_other() {
    let mut rows = gpu_rows("g");
    let slower = rows.clone().into_iter().filter(|row| row.provider == OURS);
    let slower: Vec<Row> = slower
        .map(|row| Row {
            engine: serde_json::from_value("unit".into()).unwrap(),
            median_us: 2.0 * row.median_us,
            ..row
        })
        .collect();
    let alone = headline(&rows).unwrap();
    let short = speed(&rows).unwrap();
    for row in &mut rows {
        if row.provider == OURS {
            row.engine = serde_json::from_value("mma".into()).unwrap();
        }
    }
    rows.extend(slower);
    let table = peers(&rows).unwrap();
    for line in [
        "| s2048_v8 | forward | mma | 0.125 | 2.00 ms | 50 % |",
        "| s2048_v8 | forward | unit | 0.125 | 4.00 ms | 50 % |",
    ] {
        assert!(table.contains(line), "{line} in\n{table}");
    }
    assert_eq!(headline(&rows).unwrap(), alone);
    assert_eq!(speed(&rows).unwrap(), short);
    let svg = time_by_length(&rows).unwrap();
    assert!(svg.contains("S2 (mma) block 64") && svg.contains("S2 (unit) block 64"));
    let svg = speedup_by_density(&rows).unwrap();
    assert!(svg.contains("S2 (unit) over FlashAttention-2"), "{svg}");
}

#[test]
fn what_was_left_out_is_marked_and_says_why() {
    let rows = gpu_rows("g");
    let left_out = |provider: &str, problem: &str, pass: &str, reason: &str| -> LeftOut {
        let of = json!({"run": "g", "provider": provider, "problem": problem, "pass": pass, "reason": reason});
        serde_json::from_value(of).unwrap()
    };
    let slow = "needs <blocks> of 128, 64 is refused, and says so in many more words than a line of a list has room for: see the book, and its pages";
    let mut list = vec![
        left_out("dkernel", "s2048_v8", "forward-backward", slow),
        left_out(
            "dkernel",
            "s1024_v8",
            "forward-backward",
            &slow.replace("64", "32"),
        ),
        left_out("flash-attn-4", "s1024_v8", "forward", "not installed"),
        // It was timed when it was tried again.
        left_out("dkernel", "s2048_v8", "forward", "out of luck"),
    ];
    let table = peers::peers(&rows, List(Some(&list))).unwrap();
    for line in [
        "| s2048_v8 | forward-backward | - | 0.125 | 8.00 ms | 50 % | 0.050 | 3 MiB | 400.00 ms (50.00x) | - |",
        "| s2048_v4 | forward-backward | - | 0.250 | 10.00 ms | 80 % | 0.050 | 3 MiB | 400.00 ms (40.00x) |  |",
        "- flash-attn-4, forward (`s1024_v8`): not installed",
        &format!(
            "- dkernel, forward-backward (2 points): {}...",
            slow[..120].replace('<', "&lt;")
        ),
    ] {
        assert!(table.lines().any(|seen| seen == line), "{line} in\n{table}");
    }
    assert!(
        !table.contains("out of luck") && !table.contains("no list"),
        "{table}"
    );
    assert!(
        peers(&rows)
            .unwrap()
            .contains("no list of what was left out")
    );

    // Dense providers are asked for the dense problem of a shape.
    let ours = Row {
        problem: "b1_h8_s2048_d64_f32_blk64_l4_v8".to_owned(),
        ..rows[3].clone()
    };
    list.push(left_out(
        "sdpa-flash",
        "b1_h8_s2048_d64_f32_dense",
        &ours.pass.to_string(),
        "no",
    ));
    let marks = [true, false].map(|dense| List(Some(&list)).mark("sdpa-flash", dense, &ours));
    assert_eq!(marks, ["-", ""]);
    assert_eq!(List(Some(&[])).reasons(&rows), "");
}

#[test]
fn the_headline_is_the_problem_that_most_others_have() {
    let table = headline(&gpu_rows("g")).unwrap();
    let expected = "| | forward | forward-backward |\n\
                    |---|---:|---:|\n\
                    | **burn-s2-attention** | **2.00 ms** | **8.00 ms** |\n\
                    | dkernel | 3.00 ms (1.50x) | - |\n\
                    | sdpa-flash, dense | 100.00 ms (50.00x) | 400.00 ms (50.00x) |\n\n\
                    `s2048_v8`: a pattern, 12.5 % of all pairs. Medians";
    assert!(table.starts_with(expected), "{table}");
    // Rows of another type are not what it shows.
    let mut of_two = gpu_rows("g");
    let mut other = of_two[0].clone();
    (other.dtype, other.problem) = (Dtype::F16, "another".to_owned());
    of_two.push(other);
    let both = headline(&of_two).unwrap();
    assert!(both.contains(" runs, f32, on"), "{both}");
    let alone: Vec<Row> = rows("a")
        .into_iter()
        .filter(|row| row.provider == OURS)
        .collect();
    for (rows, said) in [(&alone[..], "nobody"), (&alone[..0], "no problem")] {
        assert!(headline(rows).unwrap_err().to_string().contains(said));
    }
}

/// A run of decode: a copy of 1 GB/s, this library, and others dense and sparse.
fn decode_rows() -> Vec<Row> {
    let decoded = |provider: &str, problem: &str, ms: f64| {
        let dense = problem.ends_with("dense");
        let stride = (!dense).then_some(4);
        let row = row("d", provider, "decode", 1024, stride, ms);
        Row {
            problem: problem.to_owned(),
            kv_heads: 2,
            seq_q: 1,
            ..row
        }
    };
    let sparse = "b1_h8kv2_s1024_d64_f32_blk64_l4_v4_perkv";
    let dense = "b1_h8kv2_s1024_d64_f32_dense";
    let copy = Row {
        seq_kv: 1_000_000,
        head_dim: 1,
        causal: false,
        ..decoded("copy", "copy_1000000_f32", 8.0)
    };
    vec![
        copy,
        decoded(OURS, sparse, 2.0),
        decoded("sdpa-flash", dense, 5.0),
        decoded("dkernel", sparse, 1.0),
    ]
}

#[test]
fn decode_stands_beside_a_copy_and_others() {
    let rows = decode_rows();
    let table = decode(&rows).unwrap();
    // A head keeps the last 4 of 16 blocks and 3 of 12 others: 2 heads x 448 keys and values of 256 bytes in 2 ms.
    let expected = "| problem | density | ours | GB/s | of a copy | sdpa-flash, dense | dkernel |\n\
                    |---|---:|---:|---:|---:|---:|---:|\n\
                    | b1_h8kv2_s1024_d64_f32_blk64_l4_v4_perkv | 0.250 | 2.00 ms | 0 | 23 % | 5.00 ms (2.50x) | 1.00 ms (0.50x) |\n";
    assert!(table.starts_with(expected), "{table}");
    assert!(
        table.contains("A copy moves 1 GB/s there. Medians"),
        "{table}"
    );
    let alone = decode(&rows[..2]).unwrap();
    assert!(
        alone.starts_with("| problem | density | ours | GB/s | of a copy |\n"),
        "{alone}"
    );
    for (missing, said) in [(&rows[1..], "copy"), (&rows[..1], "no decode")] {
        assert!(decode(missing).unwrap_err().to_string().contains(said));
    }
    let peers = peers(&rows).unwrap();
    assert!(!peers.contains("copy"), "{peers}");
}

#[test]
fn speed_ups_on_a_gpu_are_over_flash_attention() {
    let rows = gpu_rows("g");
    let table = speed(&rows).unwrap();
    assert!(table.starts_with("| tokens | attended | forward | over FlashAttention-2 |"));
    assert!(
        table.contains("| 2048 | 12 % | 2.00 ms | 50.0x | 8.00 ms | 50.0x |"),
        "{table}"
    );
    let table = points(&rows).unwrap();
    let host = "| s1024_v8 | host-forward | - | 0.125 | 0.015 ms | - | - | - | - | - | 20 |";
    assert!(table.contains(host), "{table}");

    let svg = time_by_length(&rows).unwrap();
    for text in [
        "FlashAttention-2 dense",
        "dkernel block 64",
        "S2 block 64",
        "S2 dense",
    ] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
    let svg = speedup_by_density(&rows).unwrap();
    for text in [
        "over FlashAttention-2",
        "dkernel over it",
        "over our own dense",
    ] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
}

/// Of problems that as many others were timed at, the one of the widest heads.
#[test]
fn the_headline_is_of_the_widest_heads() {
    let rows = gpu_rows("g");
    let mut wide = rows.clone();
    for row in &mut wide {
        row.head_dim = 128;
        row.problem += "_d128";
        row.median_us *= 2.0;
    }
    for both in [[wide.clone(), rows.clone()], [rows.clone(), wide.clone()]] {
        assert!(headline(&both.concat()).unwrap().contains("_d128`"));
    }
    assert!(!headline(&rows).unwrap().contains("_d128`"));
}
