//! The `kernels` command: times the GPU kernels alone and leaves no rows. For work on the kernels.

use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};

use crate::gpu::Gpu;
use crate::harness::Effort;
use crate::problems::Problem;
use crate::record::Pass;

/// Options of `kernels`.
#[derive(Debug, clap::Args)]
pub struct KernelsArgs {
    /// Problems by name, e.g. `b1_h16_s8192_d128_bf16_blk64_l16_v16` or `b1_h16kv4_s2048_d64_f32_dense`.
    #[arg(required = true, value_delimiter = ',')]
    pub problems: Vec<Problem>,
    /// Fewest timed runs.
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
}

/// Times forward and backward of each problem and returns the table.
///
/// # Errors
/// No device, or a problem that it cannot run.
pub fn run(args: &KernelsArgs) -> anyhow::Result<String> {
    let gpu = Gpu::new(None)?;
    let effort = Effort::gpu(args.runs.max(1), Duration::MAX);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["problem", "pass", "engine", "ms", "useful TFLOP/s"]);
    for problem in &args.problems {
        for pass in [Pass::Forward, Pass::Backward] {
            let measured = gpu
                .time(problem, pass, &effort)
                .with_context(|| format!("{} {pass}", problem.name))?;
            let seconds = measured.timing.median.as_secs_f64();
            let flops = problem.useful_flops(pass)?.unwrap_or(f64::NAN);
            table.add_row([
                problem.name.clone(),
                pass.to_string(),
                measured
                    .engine
                    .map_or(String::new(), |engine| engine.to_string()),
                format!("{:.3}", seconds * 1e3),
                format!("{:.1}", flops / seconds / 1e12),
            ]);
        }
    }
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table.to_string())
}
