//! Gradient clipping by global norm: Burn's own clips each tensor by itself, which changes the
//! direction of the step.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{FloatDType, Tensor},
};

/// Scales all gradients by the same factor so that the norm over all of them is at most `max_norm`
/// (Pascanu et al. 2013, arXiv 1211.5063). Nothing is read back from the device.
pub fn clip_by_global_norm<M: Module>(
    module: &M,
    mut grads: GradientsParams,
    max_norm: f64,
) -> GradientsParams {
    let mut squares = SumOfSquares {
        grads: &grads,
        sum: None,
    };
    module.visit(&mut squares);
    let Some(sum) = squares.sum else {
        return grads;
    };
    // As in PyTorch, a little more than the norm, so that zero gradients stay zero.
    let factor = (sum.sqrt() + 1e-6)
        .recip()
        .mul_scalar(max_norm)
        .clamp_max(1.0);
    module.visit(&mut Scale {
        grads: &mut grads,
        factor,
    });
    grads
}

struct SumOfSquares<'a> {
    grads: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SumOfSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.get::<D>(param.id) else {
            return;
        };
        // In f32: squares leave the range of f16.
        let square = grad.cast(FloatDType::F32).square().sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + square,
            None => square,
        });
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let factor = self.factor.clone().cast(grad.dtype()).unsqueeze();
            self.grads.register(param.id, grad * factor);
        }
    }
}
