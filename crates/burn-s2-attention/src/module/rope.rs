//! Rotary position embedding (RoPE) in the rotate-half convention.
//!
//! Element `k` of a head is paired with element `k + head_dim / 2`, as in the checkpoints of Llama, Phi, Mistral and
//! Qwen. Burn's own [`RotaryEncoding`](burn::nn::RotaryEncoding) pairs neighbours (`2k` with `2k + 1`), so the same weights
//! give other results with it: that is why this crate has its own.
//!
//! From Su et al., [RoFormer](https://arxiv.org/abs/2104.09864): pair `k` at position `p` turns by `p * theta^(-2k / head_dim)`.

use std::sync::{Arc, Mutex, PoisonError};

use burn::config::Config;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{ModuleConfigError, RopeScaling};
use crate::Layout;

/// Configuration of [`Rope`].
///
/// ```
/// use burn_s2_attention::module::{RopeConfig, RopeScaling};
///
/// let llama3 = RopeConfig::new().with_theta(500_000.0).with_scaling(RopeScaling::Llama3 {
///     factor: 8.0,
///     low_freq_factor: 1.0,
///     high_freq_factor: 4.0,
///     original_max_positions: 8192,
/// });
/// assert!(llama3.try_init(128).is_ok());
/// assert!(llama3.try_init(127).is_err());
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    #[config(default = 10000.0)]
    pub theta: f64,
    /// Change of the frequencies for long contexts.
    #[config(default = "RopeScaling::None")]
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// Computes the frequencies for heads of `head_dim` elements.
    ///
    /// # Errors
    ///
    /// If `head_dim` is odd or zero, `theta` or a factor is not a positive number, or the list of factors has not `head_dim / 2`
    /// entries.
    pub fn try_init(&self, head_dim: usize) -> Result<Rope, ModuleConfigError> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(ModuleConfigError::OddHeadDim { head_dim });
        }
        ModuleConfigError::check_positive("rope.theta", self.theta)?;
        self.scaling.check(head_dim / 2)?;

        let frequencies = (0..head_dim / 2)
            .map(|k| {
                let frequency = self.theta.powf(-2.0 * k as f64 / head_dim as f64);
                self.scaling.apply(k, frequency)
            })
            .collect();
        Ok(Rope {
            frequencies,
            amplitude: self.scaling.amplitude(),
            kept: Arc::default(),
        })
    }

    /// Same as [`try_init`](Self::try_init).
    ///
    /// # Panics
    ///
    /// With the text of the error that [`try_init`](Self::try_init) returns.
    pub fn init(&self, head_dim: usize) -> Rope {
        self.try_init(head_dim)
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Rotary position embedding, created by [`RopeConfig`]. It has no parameters.
///
/// Cosines and sines are computed on the host in f64 for the positions of a call, and kept for the next call at the same
/// positions. There is no longest context to configure. Clones share what is kept, so the layers of a model compute it once.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Radians per position, `head_dim / 2` values.
    frequencies: Vec<f64>,
    amplitude: f64,
    /// The latest rows of each device and dtype.
    kept: Arc<Mutex<Vec<Rows>>>,
}

/// Cosine and sine of the positions from each start, both `[starts, seq, head_dim / 2]`.
#[derive(Clone, Debug)]
struct Rows {
    starts: Vec<usize>,
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Rope {
    /// Elements per head.
    pub fn head_dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Radians per position of each pair, from the highest frequency to the lowest: `head_dim / 2` values.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Turns every pair of `x` by its angle. f16 and bf16 are computed in f32. Differentiable.
    ///
    /// `starts` are the positions, in tokens, of the first row of each batch item: one entry for all items, or one per item.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, heads, seq, head_dim]` or `[batch, seq, heads, head_dim]`, as `layout` says
    /// - output: same shape and dtype as `x`
    ///
    /// # Panics
    ///
    /// If the last axis is not [`head_dim`](Self::head_dim), or `starts` has neither one entry nor one per batch item.
    pub fn forward(&self, x: Tensor<4>, layout: Layout, starts: &[usize]) -> Tensor<4> {
        let dtype = x.dtype();
        let [batch, _, seq, head_dim] = layout.sizes(x.dims());
        let half = self.frequencies.len();
        assert!(
            head_dim == 2 * half,
            "the last axis of x must be head_dim = {}, got {head_dim}",
            2 * half
        );
        assert_starts(starts, batch);

        let compute = if dtype == DType::F64 {
            DType::F64
        } else {
            DType::F32
        };
        let rows = self.rows(&x.device(), compute, starts, seq);
        let [cos, sin] = [rows.cos, rows.sin].map(|rows| {
            rows.narrow(1, 0, seq)
                .reshape(layout.shape([starts.len(), 1, seq, half]))
        });
        let x = x.cast(compute);
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let turned = Tensor::cat(
            vec![
                first.clone() * cos.clone() - second.clone() * sin.clone(),
                second * cos + first * sin,
            ],
            3,
        );
        turned.cast(dtype)
    }

    /// At least `seq` rows from each start.
    fn rows(&self, device: &Device, dtype: DType, starts: &[usize], seq: usize) -> Rows {
        // Without autodiff: to the graph the rows are constants.
        let device = device.clone().without_autodiff();
        // A panic elsewhere cannot leave rows half written, so a poisoned lock is still good.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept
            .iter()
            .position(|rows| rows.cos.device() == device && rows.cos.dtype() == dtype);
        if let Some(at) = at {
            if kept[at].starts == starts && kept[at].cos.dims()[1] >= seq {
                return kept[at].clone();
            }
            kept.swap_remove(at);
        }
        let rows = self.compute_rows(&device, dtype, starts, seq);
        kept.push(rows.clone());
        rows
    }

    fn compute_rows(&self, device: &Device, dtype: DType, starts: &[usize], seq: usize) -> Rows {
        let shape = [starts.len(), seq, self.frequencies.len()];
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in starts.iter().flat_map(|&start| start..start + seq) {
            for frequency in &self.frequencies {
                let angle = position as f64 * frequency;
                cos.push(self.amplitude * angle.cos());
                sin.push(self.amplitude * angle.sin());
            }
        }
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), (device, dtype));
        Rows {
            starts: starts.to_vec(),
            cos: tensor(cos),
            sin: tensor(sin),
        }
    }
}

/// Panics unless there is one start for all items of a batch or one for each.
pub(super) fn assert_starts(starts: &[usize], batch: usize) {
    assert!(
        starts.len() == 1 || starts.len() == batch,
        "starts must have 1 entry or one per batch item ({batch}), got {}",
        starts.len()
    );
}
