//! The `kernels` command: times the GPU kernels alone, without Burn around them.
//!
//! For work on the kernels; rows that results are made of come from `bench`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use comfy_table::{CellAlignment, Table, presets};
use cubecl::client::Client;
use cubecl::future::block_on;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::CubeElement;
use half::{bf16, f16};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use s2_attention_kernels::cube::{
    CubeAttention, DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs,
};
use s2_attention_kernels::{AttentionProblem, AttentionShape};

use crate::problems::Problem;
use crate::record::{Dtype, Pass};

/// Options of `kernels`.
#[derive(Debug, clap::Args)]
pub struct KernelsArgs {
    /// Problems by name, e.g. `b1_h16_s8192_d128_bf16_blk64_l16_v16` or `b1_h16kv4_s2048_d64_f32_dense`.
    #[arg(required = true, value_delimiter = ',')]
    pub problems: Vec<Problem>,
    /// Timed runs, each of as many launches as take 20 ms.
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
}

/// Times forward and backward of each problem and returns the table.
///
/// # Errors
/// No device, or a problem that it cannot run.
pub fn run(args: &KernelsArgs) -> anyhow::Result<String> {
    let client = std::panic::catch_unwind(|| cubecl::Device::default().client())
        .map_err(|_| anyhow!("no device"))?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["problem", "pass", "ms", "useful TFLOP/s"]);
    for problem in &args.problems {
        let call = Call::new(&client, problem).with_context(|| problem.name.clone())?;
        for (pass, launch) in [
            (Pass::Forward, &Call::forward as &dyn Fn(&Call) -> _),
            (Pass::Backward, &Call::backward),
        ] {
            let seconds = time(&client, args.runs, || launch(&call))
                .with_context(|| format!("{} {pass}", problem.name))?;
            let flops = problem.useful_flops(pass)?.unwrap_or(f64::NAN);
            table.add_row([
                problem.name.clone(),
                pass.to_string(),
                format!("{:.3}", seconds * 1e3),
                format!("{:.1}", flops / seconds / 1e12),
            ]);
        }
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table.to_string())
}

/// The median over runs of the seconds of a launch.
fn time(
    client: &Client,
    runs: usize,
    launch: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let sync = || block_on(client.sync()).map_err(|error| anyhow!("{error:?}"));
    let repeat = |launches: usize| -> anyhow::Result<f64> {
        sync()?;
        let start = Instant::now();
        for _ in 0..launches {
            launch()?;
        }
        sync()?;
        Ok(start.elapsed().as_secs_f64() / launches as f64)
    };
    // Compiles.
    repeat(1)?;
    let launches = (0.02 / repeat(2)?).ceil() as usize;
    let mut times = (0..runs.max(1))
        .map(|_| repeat(launches.max(1)))
        .collect::<anyhow::Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(black_box(times[times.len() / 2]))
}

/// A problem on the device.
struct Call {
    attention: CubeAttention,
    inputs: [DeviceTensor; 3],
    saved: SavedOutputs,
    dq: DeviceTensor,
    keys: KeyGradients,
}

impl Call {
    fn new(client: &Client, problem: &Problem) -> anyhow::Result<Self> {
        let of = problem.shape;
        let shape = AttentionShape {
            batch: of.batch,
            num_heads: of.heads,
            num_kv_heads: of.kv_heads,
            seq_q: of.seq,
            seq_kv: of.seq,
            head_dim: of.head_dim,
            value_dim: of.head_dim,
        };
        let attention_problem =
            AttentionProblem::new(shape, &problem.pattern.build()?, None, None)?;
        let elem = ElemType::Float(match of.dtype {
            Dtype::F32 => FloatKind::F32,
            Dtype::F16 => FloatKind::F16,
            Dtype::Bf16 => FloatKind::BF16,
            Dtype::F64 => FloatKind::F64,
        });
        let attention = CubeAttention::new(client, Arc::new(attention_problem), elem)?;
        let rng = &mut StdRng::seed_from_u64(1);
        let mut random = |sizes: [usize; 4]| {
            let values: Vec<f32> = (0..sizes.iter().product()).map(|_| normal(rng)).collect();
            place(client, sizes, &bytes(of.dtype, &values))
        };
        let inputs = [shape.q_sizes(), shape.k_sizes(), shape.v_sizes()].map(&mut random);
        let d_out = random(shape.out_sizes());
        let size = if of.dtype == Dtype::F32 { 4 } else { 2 };
        let empty = |sizes: [usize; 4]| {
            let len: usize = sizes.iter().product();
            DeviceTensor {
                handle: client.empty(len * size),
                strides: strides(sizes),
            }
        };
        let rows = shape.batch * shape.num_heads * shape.seq_q;
        let dk_len: usize = shape.k_sizes().iter().product();
        let dv_len: usize = shape.v_sizes().iter().product();
        let saved = SavedOutputs {
            forward: ForwardOutputs {
                out: empty(shape.out_sizes()),
                rounding: (size == 2).then(|| empty(shape.out_sizes())),
                lse: client.empty(rows * 4),
            },
            d_out,
            d_lse: client.create_from_slice(f32::as_bytes(&vec![0.0; rows])),
        };
        let [q, k, v] = &inputs;
        attention.forward(q, k, v, &saved.forward)?;
        Ok(Self {
            attention,
            inputs,
            saved,
            dq: empty(shape.q_sizes()),
            keys: KeyGradients {
                handle: client.empty((dk_len + dv_len) * size),
                dk: Some(strides(shape.k_sizes())),
                dv: Some((dk_len, strides(shape.v_sizes()))),
            },
        })
    }

    /// As in inference: without what gradients need.
    fn forward(&self) -> anyhow::Result<()> {
        let [q, k, v] = &self.inputs;
        let outputs = ForwardOutputs {
            rounding: None,
            ..self.saved.forward.clone()
        };
        Ok(self.attention.forward(q, k, v, &outputs)?)
    }

    fn backward(&self) -> anyhow::Result<()> {
        let [q, k, v] = &self.inputs;
        Ok(self
            .attention
            .backward(q, k, v, &self.saved, Some(&self.dq), Some(&self.keys))?)
    }
}

fn strides([_, heads, tokens, width]: [usize; 4]) -> [usize; 4] {
    [heads * tokens * width, tokens * width, width, 1]
}

fn place(client: &Client, sizes: [usize; 4], bytes: &[u8]) -> DeviceTensor {
    DeviceTensor {
        handle: client.create_from_slice(bytes),
        strides: strides(sizes),
    }
}

/// About normal: the sum of four uniform values.
fn normal(rng: &mut StdRng) -> f32 {
    (0..4).map(|_| rng.random_range(-0.5..0.5f32)).sum::<f32>() * 1.73
}

fn bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::F32 => f32::as_bytes(values).to_vec(),
        Dtype::F64 => values
            .iter()
            .flat_map(|x| f64::from(*x).to_le_bytes())
            .collect(),
        Dtype::F16 => values
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect(),
        Dtype::Bf16 => values
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
    }
}
