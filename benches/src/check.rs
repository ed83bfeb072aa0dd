//! The `check` command: what the GPU kernels hold on this machine's device, against golden data and the host oracle.
//!
//! The checks are those of the kernels' own tests, at the size of a GPU. Without Burn they build in a minute:
//!
//! ```sh
//! cargo run --release -p s2-bench --no-default-features --features check,s2-attention-kernels/vulkan -- check
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use indicatif::{ProgressBar, ProgressStyle};
use s2_attention_kernels::cube;
use serde::Serialize;

use crate::gpu;
use crate::panics::caught;

#[path = "../../crates/kernels/tests/checks/mod.rs"]
mod checks;

use checks::engine::Engine;
use checks::storage::Storage;
use checks::support::golden;
use checks::{CHECKS, Check, Effort, Share};

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Folder of the golden data.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/kernels/tests/golden"))]
    pub golden: PathBuf,
    /// Random calls against the host oracle, and half as many random runs of a cache.
    #[arg(long, default_value_t = 2000)]
    pub random: u64,
    /// The number of the first of them: to repeat one that misses. `random` takes as many numbers as there are random calls, `packed`
    /// and `decode` half as many, `halves` and `poison` a quarter.
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// What this program takes of random calls and runs, and of the other calls of `halves` and `packed`, as in `2/8`, the second of
    /// eight shares: for as many programs side by side, each of which compiles its kernels one after another.
    #[arg(long, default_value = "1/1", value_parser = share)]
    pub share: Share,
    /// Launches of each call that must give the same bits.
    #[arg(long, default_value_t = 1000)]
    pub repeats: usize,
    /// Checks to run, separated by commas; all where it is left out.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Types of tensors, separated by commas: several programs at a time compile kernels sooner than one.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "f32,f16,bf16"
    )]
    pub types: Vec<Type>,
    /// The kernels that must run.
    #[arg(long, value_enum, default_value_t = Kernels::Auto)]
    pub engine: Kernels,
    /// How the name of their tiles begins, as in `128` or `64 x 32 sliced`: for calls that those can run.
    #[arg(long)]
    pub tiles: Option<String>,
    /// Compile a few kernels of each kind only: a driver that runs on a CPU takes seconds for each.
    #[arg(long)]
    pub few_kernels: bool,
    /// File to add a line of JSON to for each check.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Types of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Type {
    /// 4 bytes.
    F32,
    /// 2 bytes, 11 digits.
    F16,
    /// 2 bytes, 8 digits.
    Bf16,
}

impl Type {
    fn storage(self) -> Storage {
        match self {
            Type::F32 => Storage::F32,
            Type::F16 => Storage::F16,
            Type::Bf16 => Storage::BF16,
        }
    }
}

/// Kernels by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernels {
    /// The library's choice for each call.
    Auto,
    /// Plain multiply-adds, in every type.
    Unit,
    /// Tensor cores; f32 is left out.
    Mma,
    /// Tensor cores of Hopper's GPUs; f32 is left out.
    Wgmma,
}

/// What came of one check.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The check.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was held, or the first miss.
    pub detail: String,
    /// How long it took.
    pub seconds: f64,
    /// Calls by the engine that ran them.
    pub engines: BTreeMap<String, usize>,
    /// The device as it names itself.
    pub device: String,
    /// The runtime's name.
    pub runtime: String,
    /// Types that the device computes in, and what it has for matrix products.
    pub features: Vec<String>,
}

/// A share by its number, counted from 1, and how many there are.
fn share(text: &str) -> Result<Share, String> {
    let parts = text.split_once('/');
    let numbers = parts.map(|(number, of)| (number.parse::<usize>(), of.parse::<usize>()));
    match numbers {
        Some((Ok(number), Ok(of))) if 0 < number && number <= of => Ok(Share {
            number: number - 1,
            of,
        }),
        _ => Err("`2/8` is accepted, the second of eight".to_owned()),
    }
}

/// Runs the checks; each row is on disk before the next check begins.
///
/// # Errors
/// No device, checks or data that do not exist, and rows that cannot be written.
pub fn run(args: &CheckArgs) -> anyhow::Result<Vec<Row>> {
    let selected = select(&args.only)?;
    ensure!(args.random > 0, "--random 0: at least 1 is accepted");
    ensure!(
        args.repeats > 1,
        "--repeats {}: at least 2 are accepted",
        args.repeats
    );
    let effort = Effort {
        golden: golden_data(&args.golden)?,
        random: args.random,
        first: args.first,
        share: args.share,
        runs: args.random.div_ceil(2),
        repeats: args.repeats,
        all_kernels: !args.few_kernels,
        types: args.types.iter().map(|of| of.storage()).collect(),
    };
    let client = gpu::client()?;
    let bar = progress_bar(selected.len() as u64);
    let mut rows = Vec::new();
    for check in selected {
        bar.set_message(check.name);
        let engine = Engine::new(client.clone());
        let engine = match args.engine {
            Kernels::Auto => engine,
            Kernels::Unit => engine.with_kernels(cube::Engine::Unit),
            Kernels::Mma => engine.with_kernels(cube::Engine::Mma),
            Kernels::Wgmma => engine.with_kernels(cube::Engine::Wgmma),
        };
        let engine = match &args.tiles {
            Some(tiles) => engine.with_tiles(tiles),
            None => engine,
        };
        let row = hold(check, &engine, &effort);
        if let Some(path) = &args.json {
            append(&row, path).with_context(|| format!("--json {}", path.display()))?;
        }
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// The checks of those names, in the order of all.
fn select(names: &[String]) -> anyhow::Result<Vec<&'static Check>> {
    let known = || CHECKS.iter().map(|check| check.name);
    for name in names {
        if !known().any(|known| known == name) {
            let known: Vec<_> = known().collect();
            bail!("--only {name}: {} are accepted", known.join(", "));
        }
    }
    let selected = CHECKS
        .iter()
        .filter(|check| names.is_empty() || names.iter().any(|name| name == check.name));
    Ok(selected.collect())
}

fn golden_data(path: &Path) -> anyhow::Result<Vec<golden::Golden>> {
    caught(|| golden::all_in(path))
        .map_err(|panic| anyhow::anyhow!("--golden {}: {panic}", path.display()))
}

/// One check. A panic is a miss: drivers and runtimes have them.
fn hold(check: &Check, engine: &Engine, effort: &Effort) -> Row {
    let start = Instant::now();
    let result = caught(|| (check.run)(engine, effort))
        .unwrap_or_else(|panic| Err(format!("panicked: {panic}")));
    let client = &engine.client;
    let ok = result.is_ok();
    let detail = result.unwrap_or_else(|miss| miss);
    Row {
        name: check.name,
        ok,
        detail: match effort.share {
            Share::WHOLE => detail,
            Share { number, of } => format!("share {}/{of}: {detail}", number + 1),
        },
        seconds: start.elapsed().as_secs_f64(),
        engines: engine.ran(),
        device: client.properties().identity.name.clone(),
        runtime: client.name().to_owned(),
        features: features(client),
    }
}

fn features(client: &Client) -> Vec<String> {
    let properties = client.properties();
    let types = [
        FloatKind::F64,
        FloatKind::F32,
        FloatKind::F16,
        FloatKind::BF16,
    ];
    let types = types
        .into_iter()
        .filter(|kind| properties.supports_type(ElemType::Float(*kind)))
        .map(|kind| format!("{kind:?}").to_lowercase());
    let matmul = &properties.features.matmul;
    let units = [
        ("cmma", !matmul.cmma.is_empty()),
        ("mma", !matmul.mma.is_empty()),
    ];
    let units = units.into_iter().filter(|(_, has)| *has);
    types
        .chain(units.map(|(name, _)| name.to_owned()))
        .collect()
}

fn append(row: &Row, path: &Path) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", serde_json::to_string(row)?)?;
    Ok(())
}

fn progress_bar(checks: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} checks, {elapsed}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(checks).with_style(style);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// The table on the screen.
pub fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(140)
        .set_header(["check", "", "s", "calls", "what"]);
    for row in rows {
        let seconds = format!("{:.1}", row.seconds);
        let ok = if row.ok { "ok" } else { "FAILED" };
        let calls: Vec<String> = row
            .engines
            .iter()
            .map(|(engine, calls)| format!("{engine} {calls}"))
            .collect();
        table.add_row([row.name, ok, &seconds, &calls.join("\n"), &row.detail]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let failed = rows.iter().filter(|row| !row.ok).count();
    let device = rows.first().map_or(String::new(), |row| {
        let features = row.features.join(" ");
        format!(" on {} ({}: {features})", row.device, row.runtime)
    });
    format!(
        "{table}\n{} of {} checks hold{device}.",
        rows.len() - failed,
        rows.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_of_a_list_once() {
        let list: Vec<_> = (0..11).collect();
        let shares = (1..=4).map(|number| share(&format!("{number}/4")).unwrap());
        let mut all: Vec<_> = shares
            .flat_map(|share| share.part_of(list.clone()))
            .collect();
        all.sort_unstable();
        assert_eq!(all, list);
        assert_eq!(share("1/1").unwrap().part_of(list.clone()), list);
        for refused in ["0/4", "5/4", "1/0", "4", "/", "a/4", "1/4/2", ""] {
            let message = share(refused).unwrap_err();
            assert!(message.contains("2/8"), "{refused}: {message}");
        }
    }
}
