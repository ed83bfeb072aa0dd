//! A problem on the device: its inputs, places for what it writes, and the launches of its passes.

use std::sync::Arc;

use anyhow::{Context, bail};
use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use s2_attention_kernels::cube::{
    self, CubeAttention, DeviceTensor, ForwardOutputs, KeyGradients, SavedOutputs,
};
use s2_attention_kernels::{AttentionProblem, AttentionShape};

use crate::problems::Problem;
use crate::record::{Dtype, Engine, Pass};

/// A problem with inputs drawn from the normal distribution of standard deviation 1.
pub struct Call {
    client: Client,
    attention: CubeAttention,
    shape: AttentionShape,
    elem: ElemType,
    inputs: [DeviceTensor; 3],
    d_out: DeviceTensor,
    d_lse: Handle,
}

/// Gradients of the inputs.
struct Gradients {
    dq: DeviceTensor,
    keys: KeyGradients,
}

/// A pass of a call with a place for all that it writes: to be launched any number of times.
pub struct Launch<'a> {
    call: &'a Call,
    pass: Pass,
    saved: SavedOutputs,
    gradients: Option<Gradients>,
}

impl Call {
    /// Puts the inputs of a problem on the device, for this engine where there is one.
    ///
    /// # Errors
    /// What the device or the kernels cannot run.
    pub fn new(
        client: &Client,
        problem: &Problem,
        engine: Option<cube::Engine>,
    ) -> anyhow::Result<Self> {
        let (shape, elem) = (shape_of(problem), elem(problem.shape.dtype));
        let attention = attention(client, problem, engine)?;
        let random = |sizes| random(client, sizes, elem);
        Ok(Self {
            inputs: [
                random(shape.q_sizes())?,
                random(shape.k_sizes())?,
                random(shape.v_sizes())?,
            ],
            d_out: random(shape.out_sizes())?,
            d_lse: client.create_from_slice(f32::as_bytes(&vec![0.0; rows(&shape)])),
            client: client.clone(),
            attention,
            shape,
            elem,
        })
    }

    /// The kernels that run it.
    ///
    /// # Errors
    /// An engine that rows have no name for.
    pub fn engine(&self) -> anyhow::Result<Engine> {
        named(self.attention.choice().engine)
    }

    /// What a backward pass starts from: the outputs of a forward pass, which is launched.
    ///
    /// # Errors
    /// A launch that is refused.
    pub fn saved(&self) -> anyhow::Result<SavedOutputs> {
        let saved = self.outputs(true);
        self.forward(&saved.forward)?;
        Ok(saved)
    }

    /// A pass; `saved` is what [`Call::saved`] made, for backward.
    ///
    /// # Errors
    /// Passes that are more than attention.
    pub fn launch(&self, pass: Pass, saved: Option<SavedOutputs>) -> anyhow::Result<Launch<'_>> {
        let gradients = match pass {
            Pass::Forward | Pass::HostForward => false,
            Pass::Backward | Pass::ForwardBackward => true,
            other => bail!(
                "{other} is not a pass of attention alone: forward, backward, forward-backward and host-forward are accepted"
            ),
        };
        Ok(Launch {
            call: self,
            pass,
            saved: saved.unwrap_or_else(|| self.outputs(gradients)),
            gradients: gradients.then(|| self.gradients()),
        })
    }

    /// As in inference unless there will be gradients, which need what `out` loses by rounding: with a place for it, the kernels
    /// are those of training.
    fn outputs(&self, gradients: bool) -> SavedOutputs {
        let sizes = self.shape.out_sizes();
        let rounding = gradients && self.elem.size() == 2;
        SavedOutputs {
            forward: ForwardOutputs {
                out: self.empty(sizes),
                rounding: rounding.then(|| self.empty(sizes)),
                lse: self.client.empty(rows(&self.shape) * size_of::<f32>()),
            },
            d_out: self.d_out.clone(),
            d_lse: self.d_lse.clone(),
        }
    }

    fn gradients(&self) -> Gradients {
        let [dk, dv] = [self.shape.k_sizes(), self.shape.v_sizes()];
        let [dk_len, dv_len] = [dk, dv].map(|sizes| sizes.iter().product::<usize>());
        Gradients {
            dq: self.empty(self.shape.q_sizes()),
            keys: KeyGradients {
                handle: self.client.empty((dk_len + dv_len) * self.elem.size()),
                dk: Some(strides(dk)),
                dv: Some((dk_len, strides(dv))),
            },
        }
    }

    fn empty(&self, sizes: [usize; 4]) -> DeviceTensor {
        empty(&self.client, sizes, self.elem)
    }

    fn forward(&self, outputs: &ForwardOutputs) -> anyhow::Result<()> {
        let [q, k, v] = &self.inputs;
        Ok(self.attention.forward(q, k, v, outputs)?)
    }
}

impl Launch<'_> {
    /// Launches it and does not wait.
    ///
    /// # Errors
    /// A launch that is refused.
    pub fn run(&self) -> anyhow::Result<()> {
        if self.pass != Pass::Backward {
            self.call.forward(&self.saved.forward)?;
        }
        if let Some(Gradients { dq, keys }) = &self.gradients {
            let [q, k, v] = &self.call.inputs;
            self.call
                .attention
                .backward(q, k, v, &self.saved, Some(dq), Some(keys))?;
        }
        Ok(())
    }
}

fn shape_of(problem: &Problem) -> AttentionShape {
    let of = problem.shape;
    AttentionShape {
        batch: of.batch,
        num_heads: of.heads,
        num_kv_heads: of.kv_heads,
        seq_q: of.seq,
        seq_kv: of.seq,
        head_dim: of.head_dim,
        value_dim: of.head_dim,
    }
}

/// A problem's kernels, of this engine where there is one.
///
/// # Errors
/// What the device or the kernels cannot run.
pub fn attention(
    client: &Client,
    problem: &Problem,
    engine: Option<cube::Engine>,
) -> anyhow::Result<CubeAttention> {
    let of = AttentionProblem::new(shape_of(problem), &problem.pattern.build()?, None, None)?;
    let elem = elem(problem.shape.dtype);
    Ok(CubeAttention::with_engine(
        client,
        Arc::new(of),
        elem,
        engine,
    )?)
}

/// What rows call an engine.
pub fn named(engine: cube::Engine) -> anyhow::Result<Engine> {
    let engine = engine.to_string();
    serde_json::from_value(engine.as_str().into())
        .with_context(|| format!("rows have no name for the engine {engine}"))
}

/// What CubeCL calls a type.
pub fn elem(dtype: Dtype) -> ElemType {
    ElemType::Float(match dtype {
        Dtype::F32 => FloatKind::F32,
        Dtype::F16 => FloatKind::F16,
        Dtype::Bf16 => FloatKind::BF16,
        Dtype::F64 => FloatKind::F64,
    })
}

/// Rows of `lse`, over all heads and sequences.
fn rows(shape: &AttentionShape) -> usize {
    shape.batch * shape.num_heads * shape.seq_q
}

/// Of contiguous `[batch, heads, tokens, width]`.
fn strides([_, heads, tokens, width]: [usize; 4]) -> [usize; 4] {
    [heads * tokens * width, tokens * width, width, 1]
}

/// A contiguous tensor of anything.
pub fn empty(client: &Client, sizes: [usize; 4], elem: ElemType) -> DeviceTensor {
    let len: usize = sizes.iter().product();
    DeviceTensor {
        handle: client.empty(len * elem.size()),
        strides: strides(sizes),
    }
}

/// A tensor of the normal distribution.
///
/// # Errors
/// A type that the device does not have.
pub fn random(client: &Client, sizes: [usize; 4], elem: ElemType) -> anyhow::Result<DeviceTensor> {
    let tensor = empty(client, sizes, elem);
    let binding = TensorBinding {
        handle: tensor.handle.clone().binding(),
        strides: tensor.strides.into(),
        shape: sizes.into(),
        tiling: Default::default(),
    };
    cubek_random::random_normal(client, 0.0, 1.0, binding, elem)?;
    Ok(tensor)
}
