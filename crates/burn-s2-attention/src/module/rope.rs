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
            tables: Arc::default(),
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
/// Cosines and sines are computed on the host in f64 and kept per device. The tables grow when a longer position is asked for, so
/// there is no longest context to configure; clones share them, so the layers of a model hold one table together.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Radians per position, `head_dim / 2` values.
    frequencies: Vec<f64>,
    amplitude: f64,
    tables: Arc<Mutex<Vec<Table>>>,
}

/// Cosine and sine, each `[positions, head_dim / 2]`.
#[derive(Clone, Debug)]
struct Table {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// Fewest positions of a table, so that short prompts do not build it again and again.
const MIN_POSITIONS: usize = 256;

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
        let (cos, sin) = self.rows(&x.device(), compute, starts, seq);
        let [cos, sin] =
            [cos, sin].map(|rows| rows.reshape(layout.shape([starts.len(), 1, seq, half])));
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

    /// Cosine and sine of `seq` positions from each start, `[starts, seq, head_dim / 2]`.
    fn rows(
        &self,
        device: &Device,
        dtype: DType,
        starts: &[usize],
        seq: usize,
    ) -> (Tensor<3>, Tensor<3>) {
        let end = starts.iter().max().map_or(0, |start| start + seq);
        let table = self.table(device, dtype, end);
        let rows = |table: &Tensor<2>| {
            let parts = starts
                .iter()
                .map(|&start| table.clone().narrow(0, start, seq).unsqueeze::<3>());
            Tensor::cat(parts.collect(), 0)
        };
        (rows(&table.cos), rows(&table.sin))
    }

    /// The table of a device, built or built anew if it has fewer than `positions` rows.
    fn table(&self, device: &Device, dtype: DType, positions: usize) -> Table {
        // Without autodiff: to the graph the tables are constants.
        let device = device.clone().without_autodiff();
        // A panic elsewhere cannot leave a table half written, so a poisoned lock is still good.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let found = tables
            .iter()
            .position(|table| table.cos.device() == device && table.cos.dtype() == dtype);
        if let Some(index) = found {
            if tables[index].cos.dims()[0] >= positions {
                return tables[index].clone();
            }
            tables.swap_remove(index);
        }
        let table = self.build(
            &device,
            dtype,
            positions.next_power_of_two().max(MIN_POSITIONS),
        );
        tables.push(table.clone());
        table
    }

    fn build(&self, device: &Device, dtype: DType, positions: usize) -> Table {
        let half = self.frequencies.len();
        let tensor = |function: fn(f64) -> f64| {
            let values: Vec<f64> = (0..positions)
                .flat_map(|p| {
                    self.frequencies
                        .iter()
                        .map(move |frequency| p as f64 * frequency)
                })
                .map(|angle| self.amplitude * function(angle))
                .collect();
            Tensor::<2>::from_data(TensorData::new(values, [positions, half]), (device, dtype))
        };
        Table {
            cos: tensor(f64::cos),
            sin: tensor(f64::sin),
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
