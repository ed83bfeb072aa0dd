//! Runs the CubeCL engines on contiguous tensors, through views of any layout.

use std::sync::Arc;

use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use half::{bf16, f16};
use s2_attention_kernels::AttentionProblem;
use s2_attention_kernels::cube::{
    CubeAttention, DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs,
};

use crate::support::{Results, Tensors, rows};

/// How an engine sees a `[b, h, s, width]` tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[b, h, s, width]`.
    Bhsd,
    /// `[b, s, h, width]`.
    Bshd,
    /// `[b, s, h, width + 8]`, as a slice of something wider.
    Sliced,
}

impl Layout {
    pub const ALL: [Layout; 3] = [Layout::Bhsd, Layout::Bshd, Layout::Sliced];

    /// The strides and the elements of the whole.
    fn strides(self, [batch, heads, seq, width]: [usize; 4]) -> ([usize; 4], usize) {
        let row = if self == Layout::Sliced {
            width + 8
        } else {
            width
        };
        let head_and_token = match self {
            Layout::Bhsd => [seq * row, row],
            Layout::Bshd | Layout::Sliced => [row, heads * row],
        };
        let item = heads * seq * row;
        (
            [item, head_and_token[0], head_and_token[1], 1],
            batch * item,
        )
    }
}

/// Storage types of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    F32,
    F16,
    BF16,
}

impl Storage {
    pub fn elem(self) -> ElemType {
        ElemType::Float(match self {
            Storage::F32 => FloatKind::F32,
            Storage::F16 => FloatKind::F16,
            Storage::BF16 => FloatKind::BF16,
        })
    }

    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Storage::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Storage::F16 => values
                .iter()
                .flat_map(|x| f16::from_f32(*x).to_le_bytes())
                .collect(),
            Storage::BF16 => values
                .iter()
                .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                .collect(),
        }
    }

    fn values(self, bytes: &[u8]) -> Vec<f64> {
        let two =
            |of: fn([u8; 2]) -> f64| bytes.chunks_exact(2).map(|x| of([x[0], x[1]])).collect();
        match self {
            Storage::F32 => bytes
                .chunks_exact(4)
                .map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]).into())
                .collect(),
            Storage::F16 => two(|x| f16::from_le_bytes(x).to_f64()),
            Storage::BF16 => two(|x| bf16::from_le_bytes(x).to_f64()),
        }
    }
}

/// A device, a layout and a storage type.
#[derive(Clone)]
pub struct Engine {
    pub client: Client,
    pub layout: Layout,
    pub storage: Storage,
}

/// The device under test, or `None` where there is none and none is asked for.
///
/// # Panics
/// Where `S2_REQUIRE_GPU` is set and there is no device.
pub fn client() -> Option<Client> {
    let found = std::panic::catch_unwind(|| cubecl::Device::default().client());
    if found.is_err() {
        let help = "no GPU found: install `mesa-vulkan-drivers` and set CUBECL_WGPU_DEFAULT_DEVICE=Cpu to run on the CPU";
        assert!(std::env::var_os("S2_REQUIRE_GPU").is_none(), "{help}");
        eprintln!("skipped, {help}");
    }
    found.ok()
}

/// Each layout in f32 on the device under test.
pub fn layouts() -> Vec<Engine> {
    let Some(client) = client() else {
        return Vec::new();
    };
    let engine = |layout| Engine {
        client: client.clone(),
        layout,
        storage: Storage::F32,
    };
    Layout::ALL.map(engine).to_vec()
}

/// f32 in Burn's own layout.
pub fn plain() -> Option<Engine> {
    layouts().into_iter().next()
}

struct Placed {
    tensor: DeviceTensor,
    axes: [usize; 4],
}

impl Engine {
    /// What lies between the rows is NaN.
    fn place(&self, values: &[f32], axes: [usize; 4]) -> Placed {
        let (strides, len) = self.layout.strides(axes);
        let mut data = vec![f32::NAN; len];
        for (row, values) in values.chunks_exact(axes[3]).enumerate() {
            data[start(row, axes, strides)..][..axes[3]].copy_from_slice(values);
        }
        let handle = self.client.create_from_slice(&self.storage.bytes(&data));
        Placed {
            tensor: DeviceTensor { handle, strides },
            axes,
        }
    }

    fn unwritten(&self, axes: [usize; 4]) -> Placed {
        self.place(&vec![f32::NAN; axes.iter().product()], axes)
    }

    /// The contiguous values. Nothing may have been written between the rows.
    fn read(&self, handle: &Handle, at: usize, axes: [usize; 4]) -> Vec<f64> {
        let (strides, len) = self.layout.strides(axes);
        let bytes = self.client.read_one(handle.clone()).expect("launched");
        let all = &self.storage.values(&bytes)[at..at + len];
        let rows = axes[0] * axes[1] * axes[2];
        let values: Vec<f64> = (0..rows)
            .flat_map(|row| all[start(row, axes, strides)..][..axes[3]].iter().copied())
            .collect();
        let nans = |values: &[f64]| values.iter().filter(|x| x.is_nan()).count();
        assert_eq!(
            nans(all) - nans(&values),
            len - values.len(),
            "written between the rows"
        );
        values
    }

    fn floats(&self, values: &[f32]) -> Handle {
        self.client.create_from_slice(f32::as_bytes(values))
    }

    pub fn prepare(&self, problem: &AttentionProblem) -> CubeAttention {
        CubeAttention::new(&self.client, Arc::new(problem.clone()), self.storage.elem())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Both passes; the gradients that are `wanted`.
    pub fn passes(
        &self,
        problem: &AttentionProblem,
        tensors: &Tensors,
        wanted: [bool; 3],
    ) -> (Vec<f64>, Vec<f64>, [Option<Vec<f64>>; 3]) {
        let shape = problem.shape();
        let call = self.prepare(problem);
        let [q, k, v] = [
            self.place(&tensors.q, shape.q_sizes()),
            self.place(&tensors.k, shape.k_sizes()),
            self.place(&tensors.v, shape.v_sizes()),
        ];
        let out = self.unwritten(shape.out_sizes());
        let rounding = (self.storage != Storage::F32).then(|| self.unwritten(shape.out_sizes()));
        let lse = self.floats(&vec![f32::NAN; rows(shape)]);
        let outputs = ForwardOutputs {
            out: out.tensor.clone(),
            rounding: rounding.map(|rounding| rounding.tensor),
            lse: lse.clone(),
        };
        call.forward(&q.tensor, &k.tensor, &v.tensor, &outputs)
            .unwrap_or_else(|error| panic!("{error}"));

        let d_lse = match &tensors.d_lse {
            Some(d_lse) => self.floats(d_lse),
            None => self.floats(&vec![0.0; rows(shape)]),
        };
        let saved = SavedOutputs {
            forward: outputs,
            d_out: self.place(&tensors.d_out, shape.out_sizes()).tensor,
            d_lse,
        };
        let dq = wanted[0].then(|| self.unwritten(shape.q_sizes()));
        let (dk_strides, dk_len) = self.layout.strides(shape.k_sizes());
        let (dv_strides, dv_len) = self.layout.strides(shape.v_sizes());
        let dk_len = if wanted[1] {
            dk_len.next_multiple_of(8)
        } else {
            0
        };
        let keys = (wanted[1] || wanted[2]).then(|| KeyGradients {
            handle: self
                .client
                .create_from_slice(&self.storage.bytes(&vec![f32::NAN; dk_len + dv_len])),
            dk: wanted[1].then_some(dk_strides),
            dv: wanted[2].then_some((dk_len, dv_strides)),
        });
        call.backward(
            &q.tensor,
            &k.tensor,
            &v.tensor,
            &saved,
            dq.as_ref().map(|dq| &dq.tensor),
            keys.as_ref(),
        )
        .unwrap_or_else(|error| panic!("{error}"));

        let dq = dq.map(|dq| self.read(&dq.tensor.handle, 0, dq.axes));
        let dk = wanted[1].then(|| self.read(&keys.as_ref().unwrap().handle, 0, shape.k_sizes()));
        let dv =
            wanted[2].then(|| self.read(&keys.as_ref().unwrap().handle, dk_len, shape.v_sizes()));
        let out = self.read(&out.tensor.handle, 0, out.axes);
        let lse = Storage::F32.values(&self.client.read_one(lse).expect("launched"));
        (out, lse, [dq, dk, dv])
    }

    pub fn run(&self, problem: &AttentionProblem, tensors: &Tensors) -> Results {
        let (out, lse, gradients) = self.passes(problem, tensors, [true; 3]);
        let [dq, dk, dv] = gradients.map(Option::unwrap);
        Results {
            out,
            lse,
            dq,
            dk,
            dv,
        }
    }
}

/// Where the `row`-th row of the contiguous tensor starts.
fn start(row: usize, [_, heads, seq, _]: [usize; 4], strides: [usize; 4]) -> usize {
    let (item, head, token) = (row / (heads * seq), row / seq % heads, row % seq);
    item * strides[0] + head * strides[1] + token * strides[2]
}
