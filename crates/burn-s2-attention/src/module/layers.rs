//! Linear layers, norms and rotary positions. Those of the few rows of a step have kernels of their own on GPUs, where no gradients are
//! asked for: Burn's are made for many rows.

use burn::nn::Linear;
use burn::nn::norm::Normalization;
use burn::tensor::{Int, Tensor, module};

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
    #[cfg(feature = "cubecl")]
    if gpu::takes(&x, &weights) {
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
    if let Normalization::Rms(rms) = norm
        && gpu::takes(&x, &rms.gamma.val().unsqueeze_dim(1))
    {
        return gpu::norm(x, rms.gamma.val(), rms.epsilon);
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

#[cfg(feature = "cubecl")]
mod gpu {
    use burn::backend::{Dispatch, DispatchDevice};
    use burn::tensor::{DType, Device, Int, Tensor};
    use s2_attention_kernels::cube::MAX_ROWS;

    use crate::row_ops::RowOps;

    /// Whether the kernels take these rows and weights, whose first axis is the last of the rows: what they refuse is Burn's to compute,
    /// or to refuse.
    pub(super) fn takes(x: &Tensor<3>, weights: &Tensor<2>) -> bool {
        let [batch, seq, width] = x.dims();
        batch * seq <= MAX_ROWS
            && weights.dims()[0] == width
            && weights.dtype() == x.dtype()
            && computes(x.dtype(), &[x.device(), weights.device()])
    }

    /// Whether the kernels turn these rows by these tables.
    pub(super) fn turns(
        x: &Tensor<4>,
        tables: &[Tensor<3>; 2],
        positions: &Tensor<1, Int>,
    ) -> bool {
        let devices = [x.device(), tables[0].device(), positions.device()];
        x.dims()[3] == 2 * tables[0].dims()[2]
            && tables[0].dtype() == DType::F32
            && positions.dtype() == DType::I32
            && computes(x.dtype(), &devices)
    }

    /// Whether the kernels compute in that type on these devices.
    fn computes(dtype: DType, devices: &[Device]) -> bool {
        // A device with gradients is another kind.
        let is_gpu = |device: &Device| matches!(device.as_dispatch(), DispatchDevice::Cube(_));
        matches!(dtype, DType::F32 | DType::F16 | DType::BF16) && devices.iter().all(is_gpu)
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

    use super::gpu::{takes, turns};

    /// What results alone do not show: the kernels are used for what they are made for, and for nothing else.
    #[test]
    fn few_rows_on_a_gpu_without_gradients_are_taken() {
        let gpu = Device::default();
        let found = std::panic::catch_unwind(|| Tensor::<1>::ones([1], &gpu).into_scalar::<f32>());
        if found.is_err() {
            assert!(std::env::var_os("S2_REQUIRE_GPU").is_none(), "no GPU found");
            return;
        }
        let takes = |rows: usize, width: usize, dtype: DType, device: &Device| {
            let x = Tensor::<3>::zeros([1, rows, 8], (device, dtype));
            let weights = Tensor::<2>::zeros([width, 4], device);
            takes(&x, &weights)
        };
        assert!(takes(1, 8, DType::F32, &gpu));
        assert!(takes(16, 8, DType::F32, &gpu));
        assert!(!takes(17, 8, DType::F32, &gpu));
        assert!(!takes(1, 9, DType::F32, &gpu));
        assert!(!takes(1, 8, DType::F16, &gpu));
        assert!(!takes(1, 8, DType::F32, &gpu.clone().autodiff()));
        assert!(!takes(1, 8, DType::F32, &Device::flex()));

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
