//! Linear layers, norms and rotary positions of cached tokens. Where no gradients are asked for they have kernels of their own on GPUs,
//! the former for few rows: Burn's are made for many.

use burn::nn::Linear;
use burn::nn::norm::Normalization;
use burn::tensor::{Int, Tensor, assert_shape, module};

/// `linear` of `x`, `[batch, seq, inputs]`.
///
/// # Panics
///
/// If the last axis of `x` is not that of the layer.
pub(crate) fn linear(linear: &Linear, x: Tensor<3>) -> Tensor<3> {
    let bias = linear.bias.as_ref().map(|bias| bias.val());
    product(x, linear.weight.val(), bias)
}

/// The product of `x`, `[batch, seq, inputs]`, and `weights`, `[inputs, outputs]`, with a bias `[outputs]`.
///
/// # Panics
///
/// If the last axis of `x` is not the first of `weights`.
pub(crate) fn product(x: Tensor<3>, weights: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [inputs, _] = weights.dims();
    assert_shape!(x, [.., inputs]);
    #[cfg(feature = "cubecl")]
    if gpu::multiplies(&x, &weights) {
        let product = gpu::product(x, weights);
        return match bias {
            Some(bias) => product + bias.unsqueeze(),
            None => product,
        };
    }
    module::linear(x, weights, bias)
}

/// `norm` of `x`, `[batch, seq, width]`.
///
/// # Panics
///
/// If the last axis of `x` is not that of the norm.
pub(crate) fn norm(norm: &Normalization, x: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "cubecl")]
    if let Normalization::Rms(rms) = norm {
        let weight = rms.gamma.val();
        if gpu::norms(&x, &weight) {
            return gpu::norm(x, weight, rms.epsilon);
        }
    }
    norm.forward(x)
}

/// `x`, `[1, seq, heads, head_dim]`, whose pairs are turned by the cosines and sines, `[1, limit, head_dim / 2]`, of a position each; or
/// `None` where there is no kernel for it.
pub(super) fn turned(
    x: &Tensor<4>,
    tables: &[Tensor<3>; 2],
    positions: &Tensor<1, Int>,
) -> Option<Tensor<4>> {
    #[cfg(feature = "cubecl")]
    if gpu::turns(x, tables, positions) {
        return Some(gpu::turned(x.clone(), tables.clone(), positions.clone()));
    }
    let _ = (x, tables, positions);
    None
}

/// What the kernels do not take is Burn's to compute, or to refuse.
#[cfg(feature = "cubecl")]
mod gpu {
    use burn::backend::{Dispatch, DispatchDevice};
    use burn::tensor::{DType, Device, Int, Tensor};
    use s2_attention_kernels::cube::MAX_ROWS;

    use crate::backends::cubecl_rows::runs;
    use crate::row_ops::RowOps;

    pub(super) fn multiplies(x: &Tensor<3>, weights: &Tensor<2>) -> bool {
        let [inputs, outputs] = weights.dims();
        few(x, inputs)
            && outputs > 0
            && weights.dtype() == x.dtype()
            && computes(x.dtype(), &[x.device(), weights.device()])
    }

    pub(super) fn norms(x: &Tensor<3>, weight: &Tensor<1>) -> bool {
        let [width] = weight.dims();
        few(x, width)
            && weight.dtype() == x.dtype()
            && computes(x.dtype(), &[x.device(), weight.device()])
    }

    pub(super) fn turns(
        x: &Tensor<4>,
        [cosines, sines]: &[Tensor<3>; 2],
        positions: &Tensor<1, Int>,
    ) -> bool {
        let dtypes = [cosines.dtype(), sines.dtype(), positions.dtype()];
        let devices = [
            x.device(),
            cosines.device(),
            sines.device(),
            positions.device(),
        ];
        x.dims()[3] == 2 * cosines.dims()[2]
            && x.dims().iter().chain(&cosines.dims()).all(|size| *size > 0)
            && dtypes == [DType::F32, DType::F32, DType::I32]
            && computes(x.dtype(), &devices)
    }

    /// Whether there are some rows of that width, and no more than the kernels take.
    fn few(x: &Tensor<3>, width: usize) -> bool {
        let [batch, seq, seen] = x.dims();
        (1..=MAX_ROWS).contains(&(batch * seq)) && seen == width && width > 0
    }

    /// Whether the kernels compute in that type on the one device of all tensors.
    fn computes(dtype: DType, devices: &[Device]) -> bool {
        let [first, others @ ..] = devices else {
            return false;
        };
        // A device with gradients is another kind.
        let DispatchDevice::Cube(device) = first.as_dispatch() else {
            return false;
        };
        others.iter().all(|other| other == first) && runs(device, dtype)
    }

    pub(super) fn product(x: Tensor<3>, weights: Tensor<2>) -> Tensor<3> {
        let [batch, seq, inputs] = x.dims();
        let outputs = weights.dims()[1];
        let rows = x.reshape([batch * seq, inputs]);
        let product = Dispatch::s2_row_product(rows.into_dispatch(), weights.into_dispatch());
        Tensor::<2>::from_dispatch(product).reshape([batch, seq, outputs])
    }

    pub(super) fn norm(x: Tensor<3>, weight: Tensor<1>, epsilon: f64) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let rows = x.reshape([batch * seq, width]);
        let normed = Dispatch::s2_row_norm(rows.into_dispatch(), weight.into_dispatch(), epsilon);
        Tensor::<2>::from_dispatch(normed).reshape([batch, seq, width])
    }

    pub(super) fn turned(
        x: Tensor<4>,
        [cosines, sines]: [Tensor<3>; 2],
        positions: Tensor<1, Int>,
    ) -> Tensor<4> {
        let [_, limit, half] = cosines.dims();
        let [cosines, sines] = [cosines, sines].map(|table| table.reshape([limit, half]));
        let turned = Dispatch::s2_row_rotation(
            x.squeeze_dim::<3>(0).into_dispatch(),
            cosines.into_dispatch(),
            sines.into_dispatch(),
            positions.into_dispatch(),
        );
        Tensor::<3>::from_dispatch(turned).unsqueeze_dim(0)
    }
}

#[cfg(all(
    test,
    feature = "flex",
    any(feature = "wgpu", feature = "cuda", feature = "rocm")
))]
mod tests {
    use burn::tensor::{DType, Device, Int, Tensor};

    use super::gpu::{multiplies, norms, turns};
    use crate::found::found;

    /// What results alone do not show: the kernels are used for what they are made for, and for nothing else.
    #[test]
    fn few_rows_on_a_gpu_without_gradients_are_taken() {
        if !found() {
            return;
        }
        let gpu = Device::default();
        let multiplies = |[batch, rows, width]: [usize; 3], dtype: DType, device: &Device| {
            let x = Tensor::<3>::zeros([batch, rows, 8], (device, dtype));
            let takes = multiplies(&x, &Tensor::<2>::zeros([width, 4], device));
            assert_eq!(takes, norms(&x, &Tensor::<1>::zeros([width], device)));
            takes
        };
        assert!(multiplies([1, 1, 8], DType::F32, &gpu));
        assert!(multiplies([1, 16, 8], DType::F32, &gpu));
        assert!(multiplies([4, 4, 8], DType::F32, &gpu));
        assert!(!multiplies([1, 17, 8], DType::F32, &gpu));
        assert!(!multiplies([4, 5, 8], DType::F32, &gpu));
        assert!(!multiplies([1, 0, 8], DType::F32, &gpu));
        assert!(!multiplies([1, 1, 9], DType::F32, &gpu));
        assert!(!multiplies([1, 1, 8], DType::F16, &gpu));
        assert!(!multiplies([1, 1, 8], DType::F32, &gpu.clone().autodiff()));
        assert!(!multiplies([1, 1, 8], DType::F32, &Device::flex()));

        let turns = |width: usize, positions: DType, device: &Device| {
            let x = Tensor::<4>::zeros([1, 3, 2, width], device);
            let tables = [(); 2].map(|()| Tensor::<3>::zeros([1, 9, 4], &gpu));
            turns(
                &x,
                &tables,
                &Tensor::<1, Int>::zeros([3], (&gpu, positions)),
            )
        };
        assert!(turns(8, DType::I32, &gpu));
        assert!(!turns(8, DType::U32, &gpu));
        assert!(!turns(6, DType::I32, &gpu));
        assert!(!turns(8, DType::I32, &gpu.clone().autodiff()));
    }
}
