//! A pattern's figures as a table.

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use s2_attention_pattern::{Balance, Pattern, PatternReport};

/// What the pattern costs and reaches at the report's length, in at most `width` columns.
pub fn table(pattern: &Pattern, report: &PatternReport, width: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width.try_into().unwrap_or(u16::MAX));
    for (name, value) in rows(pattern, report) {
        table.add_row([name.to_owned(), value]);
    }
    table
}

fn rows(pattern: &Pattern, report: &PatternReport) -> Vec<(&'static str, String)> {
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let tokens = report.tokens;
    let kept = span(
        report
            .kv_heads
            .iter()
            .map(|kv_head| kv_head.kept_tokens as f64),
    );
    let coverage = span(
        report
            .kv_heads
            .iter()
            .map(|kv_head| 100.0 * kv_head.coverage),
    );
    let dense = if pattern.is_causal() { "causal" } else { "all" };
    let speedup = match report.ideal_speedup {
        Some(speedup) => format!("{speedup:.2}x over dense"),
        None => "nothing is attended".to_owned(),
    };
    let kv_efficient = match report.kv_inefficient_at {
        None => "yes: what a row drops, no later row needs".to_owned(),
        Some([head, i, j]) => {
            let head = pattern.heads().global_head(head);
            format!("no: head {head}, key block {j} comes back in row {i}")
        }
    };
    let grows = match pattern.max_blocks() {
        None => "at any length".to_owned(),
        Some((q, kv)) => format!("for {q} x {kv} blocks, tabulated"),
    };
    vec![
        ("pattern", report.pattern.clone()),
        (
            "length",
            format!("{tokens} tokens, {} blocks", report.blocks),
        ),
        (
            "density",
            format!("{} of {dense} token pairs", percent(report.density)),
        ),
        ("ideal speed-up", speedup),
        ("work per head", balance(report.head_work, "block pairs")),
        ("work per row", balance(report.row_work, "key blocks")),
        (
            "work per column",
            balance(report.column_work, "query blocks"),
        ),
        ("empty rows", report.empty_rows.to_string()),
        ("KV kept", format!("{kept} of {tokens} tokens per KV head")),
        ("KV-efficient", kv_efficient),
        (
            "coverage",
            format!(
                "{} by all heads together, {coverage} % per KV head",
                percent(report.coverage)
            ),
        ),
        (
            "metadata",
            format!("{} bytes {grows}", pattern.metadata_bytes()),
        ),
    ]
}

fn balance(work: Balance, unit: &str) -> String {
    let Balance { min, mean, max } = work;
    if min == max {
        format!("{min} {unit}")
    } else {
        format!("{min} to {max} {unit}, mean {mean:.1}")
    }
}

/// "3", or "2 to 5" where values differ.
fn span(values: impl Iterator<Item = f64> + Clone) -> String {
    let round = |value: f64| (value * 10.0).round() / 10.0;
    let least = round(values.clone().fold(f64::INFINITY, f64::min));
    let most = round(values.fold(f64::NEG_INFINITY, f64::max));
    if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    }
}
