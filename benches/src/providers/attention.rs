//! Attention, forward and backward: this library's and Burn's own.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Distribution, Tensor};
use burn_s2_attention::{Pattern, PatternError, S2AttentionOptions, s2_attention};

use super::burn::{dtype, wait};
use super::host;
use crate::harness::{Effort, Timing, TooSlow, measure};
use crate::problems::{Problem, Shape};
use crate::record::Pass;

/// Who computes attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// This library, over the blocks that the pattern keeps.
    S2,
    /// Burn's `attention`, dense and causal. Outside autodiff it is fused on the CPU; under autodiff it is Burn's
    /// fallback, which keeps the scores.
    Burn,
}

/// A point that is left out, and why.
#[derive(Debug, thiserror::Error)]
pub enum Skipped {
    /// It would take too long.
    #[error(transparent)]
    TooSlow(#[from] TooSlow),
    /// It would need more memory than is free.
    #[error("scores and their gradients would take about {} GiB, {} GiB are free", need >> 30, free >> 30)]
    TooLarge {
        /// Bytes needed, about.
        need: u64,
        /// Bytes free at the start of the run.
        free: u64,
    },
    /// The pass is not one of attention alone.
    #[error(
        "{0} is not a pass of attention alone: forward, backward and forward-backward are accepted"
    )]
    Pass(Pass),
    /// The pattern means nothing.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// f32 tensors of `[batch, heads, seq, seq]` that Burn's fallback holds at once when gradients are computed: 5.1 were
/// measured.
const SCORE_COPIES: u64 = 6;

impl Attention {
    /// Times one pass on normally distributed inputs (standard deviation 1). `free_bytes` is what it may hold, where that is known.
    ///
    /// # Errors
    /// A point that is left out.
    pub fn time(
        self,
        problem: &Problem,
        pass: Pass,
        device: &Device,
        effort: &Effort,
        free_bytes: Option<u64>,
    ) -> Result<Timing, Skipped> {
        let shape = problem.shape;
        let pattern = problem.pattern.build()?;
        let need = (shape.batch * shape.heads * shape.seq * shape.seq * 4) as u64 * SCORE_COPIES;
        if self == Attention::Burn
            && pass != Pass::Forward
            && let Some(free) = free_bytes
            && need > free
        {
            return Err(Skipped::TooLarge { need, free });
        }

        let device = if pass == Pass::Forward {
            device.clone()
        } else {
            device.clone().autodiff()
        };
        let inputs = random_inputs(shape, &device);
        let d_out = random(shape, shape.heads, &device);
        let tracked = || inputs.clone().map(|input| input.detach().require_grad());
        // The gradient of `out` in the sum of its elements is `d_out`.
        let objective =
            |inputs: [Tensor<4>; 3]| self.attend(inputs, &pattern, shape) * d_out.clone();

        let timing = match pass {
            Pass::Forward => measure(
                effort,
                || inputs.clone(),
                |inputs| {
                    let out = self.attend(inputs, &pattern, shape);
                    wait(&device);
                    out
                },
            ),
            Pass::Backward => measure(
                effort,
                || {
                    let objective = objective(tracked());
                    wait(&device);
                    objective
                },
                |objective| {
                    let gradients = objective.backward();
                    wait(&device);
                    gradients
                },
            ),
            Pass::ForwardBackward => measure(effort, tracked, |inputs| {
                let gradients = objective(inputs).backward();
                wait(&device);
                gradients
            }),
            Pass::HostForward
            | Pass::HostOperation
            | Pass::Decode
            | Pass::Prefill
            | Pass::TrainStep => {
                return Err(Skipped::Pass(pass));
            }
        };
        Ok(timing?)
    }

    /// The host's part of a forward call without gradients.
    ///
    /// # Errors
    /// A pattern that means nothing, a device that fails, and calls that would take too long.
    pub fn host(
        self,
        problem: &Problem,
        device: &Device,
        effort: &Effort,
    ) -> anyhow::Result<Timing> {
        let pattern = problem.pattern.build()?;
        let inputs = random_inputs(problem.shape, device);
        host::time(device, effort, || {
            self.attend(inputs.clone(), &pattern, problem.shape)
        })
    }

    fn attend(self, [q, k, v]: [Tensor<4>; 3], pattern: &Pattern, shape: Shape) -> Tensor<4> {
        match self {
            Attention::S2 => s2_attention(q, k, v, pattern, &S2AttentionOptions::default()),
            Attention::Burn => {
                // Burn's fallback multiplies matrices head by head and knows no groups.
                let [k, v] = [k, v].map(|x| {
                    if x.is_autodiff() {
                        repeat_heads(x, shape)
                    } else {
                        x
                    }
                });
                let options = AttentionModuleOptions {
                    is_causal: true,
                    ..Default::default()
                };
                attention(q, k, v, None, None, options)
            }
        }
    }
}

/// `[batch, kv_heads, seq, head_dim]` with each head once for every query head of its group.
fn repeat_heads(x: Tensor<4>, shape: Shape) -> Tensor<4> {
    let Shape {
        batch,
        heads,
        kv_heads,
        seq,
        head_dim,
        ..
    } = shape;
    if heads == kv_heads {
        return x;
    }
    let x: Tensor<5> = x.unsqueeze_dim(2);
    x.repeat_dim(2, heads / kv_heads)
        .reshape([batch, heads, seq, head_dim])
}

fn random_inputs(shape: Shape, device: &Device) -> [Tensor<4>; 3] {
    device.seed(7);
    [shape.heads, shape.kv_heads, shape.kv_heads].map(|heads| random(shape, heads, device))
}

fn random(shape: Shape, heads: usize, device: &Device) -> Tensor<4> {
    let sizes = [shape.batch, heads, shape.seq, shape.head_dim];
    let normal = Distribution::Normal(0.0, 1.0);
    Tensor::random(sizes, normal, (device, dtype(shape.dtype)))
}
