//! Rotary position embedding (RoPE) in the rotate-half convention.
//!
//! Element `k` of a head is paired with element `k + head_dim / 2`, as in the checkpoints of Llama, Phi, Mistral and
//! Qwen. Burn's own [`RotaryEncoding`](burn::nn::RotaryEncoding) pairs neighbours (`2k` with `2k + 1`), so the same weights
//! give other results with it: that is why this crate has its own.
//!
//! From Su et al., [RoFormer](https://arxiv.org/abs/2104.09864): pair `k` at position `p` turns by `p * theta^(-2k / head_dim)`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::config::Config;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::layers;
use super::{ModuleConfigError, RopeScaling};
use crate::{Layout, PackedSequences};

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

/// Cosine and sine of positions, both `[items, seq, head_dim / 2]`.
#[derive(Clone, Debug)]
struct Rows {
    positions: Positions,
    cos: Tensor<3>,
    sin: Tensor<3>,
}

/// Which positions rows are for.
#[derive(Clone, Debug, PartialEq)]
enum Positions {
    /// Those from the start of each item.
    From(Vec<usize>),
    /// Those from 0 on, which others are selected from. A captured graph may read them as long as none is asked for beyond them.
    Table,
    /// Those of each document from 0, in one item.
    Packed(PackedSequences),
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
        let [batch, _, seq, _] = layout.sizes(x.dims());
        assert_starts(starts, batch);
        let rows = self.rows(&x.device(), compute_dtype(&x), starts, seq);
        self.turn(x, layout, rows.cos, rows.sin)
    }

    /// [`forward`](Self::forward) of documents that lie one after the other in a batch of 1: positions begin at 0 in each.
    ///
    /// # Panics
    ///
    /// If the last axis is not [`head_dim`](Self::head_dim), the batch is not 1, or the documents have more queries than `x` has
    /// tokens.
    pub fn forward_packed(
        &self,
        x: Tensor<4>,
        layout: Layout,
        documents: &PackedSequences,
    ) -> Tensor<4> {
        let [batch, _, seq, _] = layout.sizes(x.dims());
        let total = documents.total_q();
        assert!(
            batch == 1 && total <= seq,
            "documents of {total} tokens need a batch of 1 with as many or more, got {batch} of {seq}"
        );
        let rows = self.packed_rows(&x.device(), compute_dtype(&x), documents, seq);
        self.turn(x, layout, rows.cos, rows.sin)
    }

    /// [`forward`](Self::forward) of tokens in a batch of 1, whose positions a tensor holds. Nothing is sent to the device, so
    /// that a captured call can be replayed once the positions were rewritten in place.
    ///
    /// All positions are below `limit`: a table of so many rows is kept on the device, and taken for lower limits as well.
    ///
    /// # Shapes
    ///
    /// - `x`: `[1, heads, seq, head_dim]` or `[1, seq, heads, head_dim]`, as `layout` says
    /// - `positions`: `[seq]`, in tokens
    /// - output: same shape and dtype as `x`
    ///
    /// # Panics
    ///
    /// If the last axis is not [`head_dim`](Self::head_dim), the batch is not 1, or there is not one position for each token.
    pub fn forward_at(
        &self,
        x: Tensor<4>,
        layout: Layout,
        positions: Tensor<1, Int>,
        limit: usize,
    ) -> Tensor<4> {
        let [x] = self.turn_at([x], layout, positions, limit);
        x
    }

    /// [`forward_at`](Self::forward_at) of several tensors with the same tokens.
    pub(super) fn turn_at<const N: usize>(
        &self,
        tensors: [Tensor<4>; N],
        layout: Layout,
        positions: Tensor<1, Int>,
        limit: usize,
    ) -> [Tensor<4>; N] {
        let Some(x) = tensors.first() else {
            return tensors;
        };
        let table = self.table(&x.device(), compute_dtype(x), limit);
        let tables = [table.cos, table.sin];
        let mut selected = None;
        tensors.map(|x| {
            let [batch, _, seq, _] = layout.sizes(x.dims());
            let [given] = positions.dims();
            assert!(
                batch == 1 && given == seq,
                "{given} positions need a batch of 1 with as many tokens, got {batch} of {seq}"
            );
            if layout == Layout::Bshd
                && let Some(turned) = layers::turned(&x, &tables, &positions)
            {
                return turned;
            }
            let select = || tables.clone().map(|rows| rows.select(1, positions.clone()));
            let [cos, sin] = selected.get_or_insert_with(select).clone();
            self.turn(x, layout, cos, sin)
        })
    }

    /// Turns the tokens of each item by its rows, or those of all items by the rows of one.
    fn turn(&self, x: Tensor<4>, layout: Layout, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
        let (dtype, compute) = (x.dtype(), cos.dtype());
        let [_, _, seq, head_dim] = layout.sizes(x.dims());
        let half = self.frequencies.len();
        assert!(
            head_dim == 2 * half,
            "the last axis of x must be head_dim = {}, got {head_dim}",
            2 * half
        );
        let [cos, sin] = [cos, sin].map(|rows| {
            let items = rows.dims()[0];
            rows.narrow(1, 0, seq)
                .reshape(layout.shape([items, 1, seq, half]))
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
        let positions = Positions::From(starts.to_vec());
        self.kept_or(device, dtype, positions, seq, |device| {
            self.compute_rows(device, dtype, starts, seq)
        })
    }

    /// At least `limit` rows from position 0.
    fn table(&self, device: &Device, dtype: DType, limit: usize) -> Rows {
        self.kept_or(device, dtype, Positions::Table, limit, |device| {
            self.compute_rows(device, dtype, &[0], limit)
        })
    }

    /// `seq` rows of the documents' positions, from a table beyond the longest; those of padding are of position 0.
    fn packed_rows(
        &self,
        device: &Device,
        dtype: DType,
        documents: &PackedSequences,
        seq: usize,
    ) -> Rows {
        let positions = Positions::Packed(documents.clone());
        self.kept_or(device, dtype, positions, seq, |device| {
            let spans = || documents.spans().iter();
            let longest = spans().map(|span| span.q_start + span.q_len).max();
            let table = self.table(device, dtype, longest.unwrap_or(0).next_power_of_two());
            let tokens = spans().flat_map(|span| span.q_start..span.q_start + span.q_len);
            let mut tokens: Vec<i64> = tokens.map(|position| position as i64).collect();
            tokens.resize(seq, 0);
            let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [seq]), device);
            [table.cos, table.sin].map(|rows| rows.select(1, tokens.clone()))
        })
    }

    /// The rows that are kept for `positions`, or those that `compute` gives, which are kept from then on in place of others
    /// of their kind.
    fn kept_or(
        &self,
        device: &Device,
        dtype: DType,
        positions: Positions,
        seq: usize,
        compute: impl FnOnce(&Device) -> [Tensor<3>; 2],
    ) -> Rows {
        // Without autodiff: to the graph the rows are constants.
        let device = device.clone().without_autodiff();
        let kind = std::mem::discriminant(&positions);
        let of_kind = |rows: &Rows| {
            std::mem::discriminant(&rows.positions) == kind
                && rows.cos.device() == device
                && rows.cos.dtype() == dtype
        };
        let found = (self.kept().iter())
            .find(|rows| of_kind(rows) && rows.positions == positions && rows.cos.dims()[1] >= seq)
            .cloned();
        if let Some(rows) = found {
            return rows;
        }
        let [cos, sin] = compute(&device);
        let rows = Rows {
            positions,
            cos,
            sin,
        };
        let mut kept = self.kept();
        kept.retain(|rows| !of_kind(rows));
        kept.push(rows.clone());
        rows
    }

    /// A panic elsewhere cannot leave rows half written, so a poisoned lock is still good.
    fn kept(&self) -> MutexGuard<'_, Vec<Rows>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compute_rows(
        &self,
        device: &Device,
        dtype: DType,
        starts: &[usize],
        seq: usize,
    ) -> [Tensor<3>; 2] {
        let shape = [starts.len(), seq, self.frequencies.len()];
        let count = shape.iter().product::<usize>();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in starts.iter().flat_map(|&start| start..start + seq) {
            for frequency in &self.frequencies {
                let angle = position as f64 * frequency;
                cos.push(self.amplitude * angle.cos());
                sin.push(self.amplitude * angle.sin());
            }
        }
        // Flat at first: a device may lay the rows of a new tensor apart, and what reads a few of them would copy them all.
        let flat = |values| TensorData::new(values, [count]);
        [cos, sin]
            .map(|values| Tensor::<1>::from_data(flat(values), (device, dtype)).reshape(shape))
    }
}

/// The type that angles and products are computed in.
fn compute_dtype(x: &Tensor<4>) -> DType {
    if x.dtype() == DType::F64 {
        DType::F64
    } else {
        DType::F32
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
