//! Build time and size of patterns for 1M tokens and 64 heads, and the time of rows, columns and
//! the report.
//!
//! `cargo bench -p s2-attention-pattern`

use divan::Bencher;
use s2_attention_pattern::{PatternConfig, PatternReport, Preset, Rule};

const TOKENS: usize = 1 << 20;
const HEADS: usize = 64;
const BLOCK: usize = 64;

const NAMES: [&str; 5] = [
    "phi3_small",
    "hhst",
    "ranges_1_4_8",
    "per_head",
    "sink_and_stride",
];

fn config(name: &str) -> PatternConfig {
    let rule = match name {
        "ranges_1_4_8" => Rule::Ranges {
            strides: vec![1, 4, 8],
            range_blocks: vec![16, 64],
        },
        "per_head" => {
            let rules = (0..HEADS).map(|g| Rule::LocalStride {
                local_blocks: 1 + g,
                vert_stride: 2 + g,
            });
            Rule::PerHead(rules.collect())
        }
        "sink_and_stride" => Rule::SinkWindow {
            sink_blocks: 2,
            left: 16,
            right: None,
        }
        .union(Rule::Strided {
            vert_stride: 16,
            causal: true,
        }),
        preset => return preset.parse::<Preset>().unwrap().config(HEADS, HEADS / 4),
    };
    PatternConfig::new(rule, BLOCK, HEADS).with_num_kv_heads(HEADS / 4)
}

fn main() {
    println!("{TOKENS} tokens, {HEADS} heads, block {BLOCK}");
    for name in NAMES {
        let pattern = config(name).build().unwrap();
        println!(
            "  {name}: {} bytes, {} schedules",
            pattern.metadata_bytes(),
            pattern.schedules().len()
        );
    }
    divan::main();
}

/// From the configuration to a pattern that answers for any length.
#[divan::bench(args = NAMES)]
fn build(bencher: Bencher<'_, '_>, name: &str) {
    let config = config(name);
    bencher.bench(|| config.build().unwrap());
}

/// The last row of head 0: its pieces alone.
#[divan::bench(args = NAMES)]
fn row(bencher: Bencher<'_, '_>, name: &str) {
    let pattern = config(name).build().unwrap();
    let blocks = TOKENS / BLOCK;
    bencher.bench(|| {
        pattern
            .head(0)
            .row(divan::black_box(blocks - 1), 0..blocks)
            .count()
    });
}

/// The first column of head 0: its pieces alone.
#[divan::bench(args = NAMES)]
fn column(bencher: Bencher<'_, '_>, name: &str) {
    let pattern = config(name).build().unwrap();
    let blocks = TOKENS / BLOCK;
    bencher.bench(|| {
        pattern
            .head(0)
            .column(divan::black_box(0), 0..blocks)
            .count()
    });
}

/// All figures.
#[divan::bench(args = NAMES, sample_count = 5)]
fn report(bencher: Bencher<'_, '_>, name: &str) {
    let pattern = config(name).build().unwrap();
    bencher.bench(|| PatternReport::new(&pattern, TOKENS).unwrap());
}
