//! The `cache` command: a small model writes a long text, and what its cache takes is noted on the way.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use burn::tensor::Device;
use burn_s2_attention::cache::KvCache;
use burn_s2_attention::model::{
    GenerationConfig, Generator, HybridTransformer, HybridTransformerConfig,
};
use burn_s2_attention::{LayerSchedule, PatternConfig};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cache_record::CacheRow;
use crate::machine::Machine;
use crate::output::Output;
use crate::providers::Rig;
use crate::providers::burn::device;
use crate::record::{Backend, Dtype, Record};

/// Options of `cache`.
#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    /// What to run on: the CPU, or a GPU that this program is built for.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    pub backend: Backend,
    /// Tokens to write.
    #[arg(long, default_value_t = 100_000)]
    pub tokens: usize,
    /// Rows, at even distances.
    #[arg(long, default_value_t = 100)]
    pub points: usize,
    /// Layers of the model.
    #[arg(long, default_value_t = 2)]
    pub layers: usize,
    /// Width of its residual stream.
    #[arg(long, default_value_t = 64)]
    pub d_model: usize,
    /// Query and key/value heads of each layer.
    #[arg(long, default_value_t = 4)]
    pub heads: usize,
    /// Tokens a block.
    #[arg(long, default_value_t = 16)]
    pub block: usize,
    /// Local window in blocks.
    #[arg(long, default_value_t = 4)]
    pub local: usize,
    /// Vertical stride in blocks.
    #[arg(long, default_value_t = 16)]
    pub stride: usize,
    /// Where rows go.
    #[command(flatten)]
    pub output: Output,
}

/// Distinct tokens of the model: what it writes does not matter.
const VOCABULARY: usize = 64;

/// Writes the text; each row is on disk before it goes on. Returns the rows and their file.
///
/// # Errors
/// A backend that is not built in, a model that cannot be had, and results that cannot be written.
pub fn run(args: &CacheArgs) -> anyhow::Result<(Vec<CacheRow>, PathBuf)> {
    ensure!(
        (1..=args.tokens).contains(&args.points),
        "--points {}: from 1 to --tokens ({}) are accepted",
        args.points,
        args.tokens
    );
    let device = device(args.backend)?;
    let rig = Rig::open(Some(args.backend))?;
    let machine = args.output.of(rig.machine().clone());
    let path = args.output.path(&machine, "cache.jsonl");
    let model = model(args, &device)?;
    // The sequence and what it holds are gone after the last token: one more than is noted.
    let config = GenerationConfig::new(args.tokens + 1);
    let mut generator = Generator::new(&model, &[[0]], &config)?;
    let empty = row(args, &machine, generator.cache());
    let mut rows = Vec::new();
    let bar = progress_bar(args.tokens);
    let start = Instant::now();
    for tokens in 1..=args.tokens {
        generator.step()?;
        bar.inc(1);
        let points = |tokens: usize| tokens * args.points / args.tokens;
        if points(tokens) > points(tokens - 1) {
            let cache = generator.cache();
            let row = CacheRow {
                tokens,
                memory_bytes: cache.memory_bytes(),
                predicted_bytes: cache.predicted_bytes(tokens),
                full_bytes: cache.full_bytes(tokens),
                reserved_bytes: cache.reserved_bytes(),
                seconds: start.elapsed().as_secs_f64(),
                ..empty.clone()
            };
            row.append(&path)?;
            rows.push(row);
        }
    }
    bar.finish_and_clear();
    Ok((rows, path))
}

fn model(args: &CacheArgs, device: &Device) -> anyhow::Result<HybridTransformer> {
    let pattern = PatternConfig::local_stride(args.local, args.stride, args.block, args.heads);
    let schedule = LayerSchedule::new(pattern);
    let config =
        HybridTransformerConfig::new(VOCABULARY, args.d_model, args.layers, args.heads, schedule);
    Ok(config.try_init(device)?)
}

/// A cache without tokens.
fn row(args: &CacheArgs, machine: &Machine, cache: &KvCache) -> CacheRow {
    let bytes = cache.predicted_bytes(0);
    CacheRow {
        run: args.output.run_id(machine),
        backend: args.backend,
        dtype: Dtype::F32,
        layers: args.layers,
        heads: args.heads,
        kv_heads: args.heads,
        head_dim: args.d_model / args.heads,
        block: args.block,
        local_blocks: args.local,
        vert_stride: args.stride,
        tokens: 0,
        memory_bytes: bytes,
        table_bytes: bytes,
        predicted_bytes: bytes,
        full_bytes: bytes,
        reserved_bytes: cache.reserved_bytes(),
        seconds: 0.0,
        device: machine.device.clone(),
        driver: machine.driver.clone(),
        date: machine.date.clone(),
        commit: machine.commit.clone(),
        versions: machine.versions.clone(),
    }
}

fn progress_bar(tokens: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {pos}/{len} tokens, {per_sec}, {elapsed} (about {eta} left)",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(tokens as u64).with_style(style)
}
