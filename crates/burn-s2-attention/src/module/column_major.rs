//! Weights of linear layers in the order in which a single row reads them.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

/// The same module with the weights of its linear layers stored column by column, as PyTorch does. What it computes is the same to
/// rounding.
///
/// The product of a few rows and a matrix, which is most of what a token takes in generation, then sums along the order of memory.
/// Shapes, names and records stay as they are. A record that is loaded brings its own
/// order: call this last. Quantised weights are left as they are.
///
/// ```
/// use burn::tensor::Device;
/// use burn_s2_attention::model::HybridTransformerConfig;
/// use burn_s2_attention::module::column_major;
/// use burn_s2_attention::{LayerSchedule, PatternConfig};
///
/// let layers = LayerSchedule::new(PatternConfig::local_stride(2, 2, 16, 4));
/// let model = HybridTransformerConfig::new(100, 32, 2, 4, layers).init(&Device::default());
/// let model = column_major(model);
/// ```
pub fn column_major<M: Module>(module: M) -> M {
    module.map(&mut Mapper { linear: 0 })
}

struct Mapper {
    /// Linear layers that have been entered and not left.
    linear: usize,
}

/// What Burn says of its linear layers on the way.
const LINEAR: &str = "Struct:Linear";

impl ModuleMapper for Mapper {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.linear += usize::from(container == LINEAR);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.linear -= usize::from(container == LINEAR);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.linear == 0 || D != 2 {
            return param;
        }
        param.map(|weight| {
            if matches!(weight.dtype(), DType::QFloat(_)) {
                return weight;
            }
            let (tracked, on_graph) = (weight.is_require_grad(), weight.device().is_autodiff());
            let weight = if on_graph { weight.inner() } else { weight };
            let weight = by_columns(weight);
            // A leaf of the graph, as it was before.
            match (on_graph, tracked) {
                (false, _) => weight,
                (true, false) => Tensor::from_inner(weight),
                (true, true) => Tensor::from_inner(weight).require_grad(),
            }
        })
    }
}

fn by_columns<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    let columns = weight.transpose();
    let place = Tensor::<D>::empty(columns.dims(), (&columns.device(), columns.dtype()));
    let all = columns.dims().map(|size| 0..size);
    place.slice_assign(all, columns).transpose()
}
