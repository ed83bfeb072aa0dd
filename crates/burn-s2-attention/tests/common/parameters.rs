//! Parameters that are not those of a fresh model.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::tensors::normal;

/// Draws every parameter anew, with the deviation given: far from the even softmax and zero biases of a fresh model.
pub fn randomize<M: Module>(module: M, std: f64) -> M {
    struct Mapper(f64, u64);
    impl ModuleMapper for Mapper {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.1 += 1;
            let (std, seed) = (self.0, self.1);
            param.map(|tensor| {
                let drawn = normal(tensor.dims(), seed, &tensor.device()) * std;
                // Weights of norms are vectors around 1, biases are drawn around it too.
                let drawn = if D == 1 { drawn + 1.0 } else { drawn };
                if tensor.is_require_grad() {
                    drawn.require_grad()
                } else {
                    drawn
                }
            })
        }
    }
    module.map(&mut Mapper(std, 0))
}
