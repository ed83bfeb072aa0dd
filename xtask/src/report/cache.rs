//! What the cache of a generation takes, against its length.

use anyhow::{Context, Result, ensure};
use plotters::prelude::*;
use s2_bench::cache_record::CacheRow;
use s2_bench::summary::one_run;

use super::plots::{COLOURS, drawing};

const MIB: f64 = (1 << 20) as f64;

/// The lengths nearest to powers of ten and the last one: what is in use beside the law and a full cache.
///
/// # Errors
/// No rows, or rows of several runs.
pub fn table(rows: &[CacheRow]) -> Result<String> {
    one_run(rows)?;
    let last = rows.last().context("no rows")?;
    let mut text = String::from(
        "| tokens | cache | the law | full cache | share | tokens/s so far |\n|---:|---:|---:|---:|---:|---:|\n",
    );
    let decades = (0..).map(|power| 10_usize.pow(power));
    let lengths = decades.take_while(|length| *length < last.tokens);
    let nearest = |length: usize| rows.iter().min_by_key(|row| row.tokens.abs_diff(length));
    let mut shown: Vec<&CacheRow> = lengths.filter_map(nearest).chain([last]).collect();
    shown.dedup();
    for row in shown {
        let mib = |bytes: f64| format!("{:.2} MiB", bytes / MIB);
        text += &format!(
            "| {} | {} | {} | {} | {:.1} % | {:.0} |\n",
            row.tokens,
            mib(row.memory_bytes as f64),
            mib(row.law_bytes(row.tokens as f64)),
            mib(row.full_bytes as f64),
            100.0 * row.memory_bytes as f64 / row.full_bytes as f64,
            row.tokens as f64 / row.seconds,
        );
    }
    let CacheRow {
        layers,
        heads,
        head_dim,
        dtype,
        device,
        commit,
        ..
    } = last;
    let day = last.date.split('T').next().unwrap_or_default();
    text += &format!(
        "\n{layers} layers of {heads} heads of {head_dim}, {}, {dtype}, on {device} ({day}, commit {commit}).\n",
        pattern(last)
    );
    Ok(text)
}

/// Bytes in use at each length, the law, and a full cache.
///
/// # Errors
/// Too few rows for a line, or rows of several runs.
pub fn by_length(rows: &[CacheRow]) -> Result<String> {
    one_run(rows)?;
    let last = rows.last().context("no rows")?;
    ensure!(rows.len() > 1, "nothing to draw: lines take two points");
    let tokens = |row: &CacheRow| row.tokens as f64;
    let bytes = |of: fn(usize, usize) -> usize| {
        let of_rows = rows.iter().map(|row| of(row.memory_bytes, row.full_bytes));
        of_rows.reduce(of).map_or(1.0, |bytes| bytes as f64 / MIB)
    };
    let (low, high) = (bytes(usize::min), bytes(usize::max));
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (720, 400)).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            format!("cache of {} layers, {}", last.layers, pattern(last)),
            ("sans-serif", 18),
        )
        .margin(12)
        .margin_right(28)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(
            (tokens(&rows[0])..tokens(last)).log_scale(),
            (low * 0.8..high * 1.25).log_scale(),
        )
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("tokens")
        .y_desc("MiB")
        .x_label_formatter(&|tokens| format!("{tokens:.0}"))
        .y_label_formatter(&|mib| format!("{mib}"))
        .draw()
        .map_err(drawing)?;
    let points = |bytes: &dyn Fn(&CacheRow) -> f64| -> Vec<(f64, f64)> {
        let points = rows.iter().map(|row| (tokens(row), bytes(row) / MIB));
        points.collect()
    };
    let full = points(&|row| row.full_bytes as f64);
    let law = points(&|row| row.law_bytes(tokens(row)));
    for (label, points, colour) in [
        ("a cache of everything", full, &COLOURS[1]),
        ("the law: L + (N - L) / V blocks", law, &COLOURS[0]),
    ] {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(drawing)?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let dots = rows.iter().map(|row| {
        Circle::new(
            (tokens(row), row.memory_bytes as f64 / MIB),
            2,
            BLACK.filled(),
        )
    });
    chart
        .draw_series(dots)
        .map_err(drawing)?
        .label("in use, between two tokens")
        .legend(|(x, y)| Circle::new((x + 9, y), 2, BLACK.filled()));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
        .map_err(drawing)?;
    area.present().map_err(drawing)?;
    drop(chart);
    drop(area);
    Ok(svg)
}

fn pattern(row: &CacheRow) -> String {
    format!(
        "block {}, local {}, stride {}",
        row.block, row.local_blocks, row.vert_stride
    )
}

#[cfg(test)]
mod tests {
    use s2_bench::cache_record::CacheRow;
    use serde_json::json;

    use super::{by_length, table};

    /// 2 layers of 4 heads, pages of 16 tokens of 16 elements of 4 bytes, local 4, stride 16.
    fn row(run: &str, tokens: usize, pages: usize) -> CacheRow {
        let page = 2 * 16 * 16 * 4;
        let row = json!({
            "run": run, "backend": "flex", "dtype": "f32", "layers": 2, "heads": 4, "kv_heads": 4, "head_dim": 16, "block": 16,
            "local_blocks": 4, "vert_stride": 16, "tokens": tokens, "memory_bytes": 1024 + pages * page, "table_bytes": 1024,
            "predicted_bytes": 1024 + pages * page, "full_bytes": 1024 + 8 * tokens / 16 * page, "reserved_bytes": 1 << 20,
            "seconds": tokens as f64 / 500.0, "device": "Test CPU", "driver": null, "date": "2026-01-02T03:04:05Z",
            "commit": "0123456789ab", "versions": {},
        });
        serde_json::from_value(row).unwrap()
    }

    /// 3200 tokens are 200 blocks: 4 local ones and 196 / 16 others, in 8 lists.
    fn rows(run: &str) -> Vec<CacheRow> {
        vec![row(run, 16, 8), row(run, 960, 60), row(run, 3200, 130)]
    }

    #[test]
    fn the_table_stands_beside_the_law() {
        assert_eq!(
            rows("a")[2].law_bytes(3200.0),
            1024.0 + 2048.0 * 8.0 * (4.0 + 12.25)
        );
        assert_eq!(rows("a")[0].law_bytes(16.0), 1024.0 + 2048.0 * 8.0);
        let table = table(&rows("a")).unwrap();
        let lines: Vec<&str> = table
            .lines()
            .skip(2)
            .take_while(|line| !line.is_empty())
            .collect();
        assert_eq!(
            lines,
            [
                "| 16 | 0.02 MiB | 0.02 MiB | 0.02 MiB | 100.0 % | 500 |",
                "| 960 | 0.12 MiB | 0.12 MiB | 0.94 MiB | 12.6 % | 500 |",
                "| 3200 | 0.25 MiB | 0.25 MiB | 3.13 MiB | 8.2 % | 500 |",
            ]
        );
        assert!(
            table.contains(
                "2 layers of 4 heads of 16, block 16, local 4, stride 16, f32, on Test CPU"
            )
        );
    }

    #[test]
    fn the_picture_has_all_three() {
        let svg = by_length(&rows("a")).unwrap();
        for text in [
            "a cache of everything",
            "the law",
            "in use",
            "block 16, local 4, stride 16",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert!(by_length(&rows("a")[..1]).is_err());
        let mixed = [rows("a"), rows("b")].concat();
        assert!(by_length(&mixed).is_err() && table(&mixed).is_err() && table(&[]).is_err());
    }
}
