//! Runs the operation and its gradients on host data.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_s2_attention::{Layout, S2AttentionOptions, s2_attention_with_lse};
use s2_attention_kernels::AttentionProblem;

use crate::common::host::values;
use crate::support::{Results, Tensors};

/// Contiguous values as a tensor.
pub fn tensor<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    dtype: DType,
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype))
}

/// The same values, one after the other in memory. Not differentiable.
pub fn contiguous<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let (device, dtype) = (tensor.device(), tensor.dtype());
    Tensor::from_data(tensor.into_data(), (&device, dtype))
}

/// `[b, h, s, width]` to `layout`, or back: swapping the middle axes is its own inverse.
pub fn arranged(tensor: Tensor<4>, layout: Layout) -> Tensor<4> {
    match layout {
        Layout::Bhsd => tensor,
        Layout::Bshd => tensor.swap_dims(1, 2),
    }
}

pub fn zeros<const D: usize>(shape: [usize; D], dtype: DType) -> Tensor<D> {
    Tensor::zeros(shape, (&crate::device(), dtype))
}

/// The type that gradients are fed in: f64 for f64, else f32.
pub fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}

/// A call on Burn tensors.
pub struct Call<'a> {
    pub problem: &'a AttentionProblem,
    pub tensors: &'a Tensors,
    pub dtype: DType,
    pub device: Device,
}

impl<'a> Call<'a> {
    /// In f32, with gradients.
    pub fn new(problem: &'a AttentionProblem, tensors: &'a Tensors) -> Self {
        Self {
            problem,
            tensors,
            dtype: DType::F32,
            device: crate::device().autodiff(),
        }
    }

    /// `q`, `k` and `v`, `[b, h, s, width]`.
    pub fn inputs(&self) -> [Tensor<4>; 3] {
        let shape = self.problem.shape();
        let tensor = |values: &[f32], shape| tensor(values, shape, self.dtype, &self.device);
        [
            tensor(&self.tensors.q, shape.q_sizes()),
            tensor(&self.tensors.k, shape.k_sizes()),
            tensor(&self.tensors.v, shape.v_sizes()),
        ]
    }

    /// The problem's scale and positions, of a batch of one sequence an item.
    pub fn options(&self) -> S2AttentionOptions {
        let sequences = self.problem.sequences().iter();
        S2AttentionOptions::default()
            .with_scale(self.problem.scale())
            .with_positions(sequences.map(|sequence| sequence.span).collect())
    }

    pub fn attend(&self, [q, k, v]: [Tensor<4>; 3]) -> (Tensor<4>, Tensor<3>) {
        s2_attention_with_lse(q, k, v, self.problem.pattern(), &self.options())
    }

    /// `sum(out * d_out) + sum(lse * d_lse)`, without the second term where there is no `d_lse`.
    pub fn loss(&self, out: Tensor<4>, lse: Tensor<3>) -> Tensor<1> {
        let wide = wide(self.dtype);
        let d_out = tensor(&self.tensors.d_out, out.dims(), wide, &self.device);
        let loss = (out.cast(wide) * d_out).sum();
        match &self.tensors.d_lse {
            Some(d_lse) => {
                let d_lse = tensor(d_lse, lse.dims(), wide, &self.device);
                loss + (lse.cast(wide) * d_lse).sum()
            }
            None => loss,
        }
    }

    /// Results and gradients of `attend`, which is given `q`, `k` and `v`.
    pub fn results_of(
        &self,
        attend: impl FnOnce([Tensor<4>; 3]) -> (Tensor<4>, Tensor<3>),
    ) -> Results {
        self.results_from(self.inputs(), attend)
    }

    /// Results of `attend` and the gradients of its `inputs`.
    pub fn results_from(
        &self,
        inputs: [Tensor<4>; 3],
        attend: impl FnOnce([Tensor<4>; 3]) -> (Tensor<4>, Tensor<3>),
    ) -> Results {
        let leaves = inputs.map(Tensor::require_grad);
        let (out, lse) = attend(leaves.clone());
        let gradients = self.loss(out.clone(), lse.clone()).backward();
        let [dq, dk, dv] = leaves.map(|leaf| values(leaf.grad(&gradients).unwrap()));
        Results {
            out: values(out),
            lse: values(lse),
            dq,
            dk,
            dv,
        }
    }

    /// Results and gradients of the operation.
    pub fn results(&self) -> Results {
        self.results_of(|inputs| self.attend(inputs))
    }
}
