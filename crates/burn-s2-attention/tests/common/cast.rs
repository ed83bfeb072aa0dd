//! Modules in other float types.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

/// Casts every parameter.
pub fn cast<M: Module>(module: M, dtype: DType) -> M {
    struct Mapper(DType);
    impl ModuleMapper for Mapper {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    module.map(&mut Mapper(dtype))
}
