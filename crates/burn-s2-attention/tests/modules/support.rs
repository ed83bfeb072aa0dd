//! What several of these tests need.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};

/// Normal values in f32, the same for the same `seed`.
pub fn normal<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(normal_values(shape.iter().product(), seed), shape),
        (device, DType::F32),
    )
}

/// Standard normal values from a fixed generator (SplitMix64 and Box-Muller), so that no test depends on the state of a device.
pub fn normal_values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut uniform = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count)
        .map(|_| (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos())
        .collect()
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    // On the host: not every device has f64.
    tensor.into_data().convert::<f64>().try_to_vec().unwrap()
}

/// Largest `|a - b| / (1 + |b|)`.
#[track_caller]
pub fn distance<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let pairs = values(a).into_iter().zip(values(b));
    pairs
        .map(|(a, b)| (a - b).abs() / (1.0 + b.abs()))
        .fold(0.0, f64::max)
}

#[track_caller]
pub fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f64) {
    let distance = distance(a, b);
    assert!(
        distance <= tolerance,
        "distance {distance:e} is above {tolerance:e}"
    );
}

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

/// Names of all parameters, and those whose gradient is missing, not finite or all zero.
pub fn parameters_without_gradient<M: Module>(
    module: &M,
    gradients: &Gradients,
) -> (usize, Vec<String>) {
    struct Visitor<'a> {
        path: Vec<String>,
        gradients: &'a Gradients,
        count: usize,
        without: Vec<String>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.count += 1;
            let largest = param.val().grad(self.gradients).map(|gradient| {
                values(gradient).into_iter().fold(0.0, |largest: f64, g| {
                    if g.is_finite() {
                        largest.max(g.abs())
                    } else {
                        f64::NAN
                    }
                })
            });
            if !largest.is_some_and(|largest| largest > 0.0) {
                self.without.push(self.path.join("."));
            }
        }
    }
    let mut visitor = Visitor {
        path: vec![],
        gradients,
        count: 0,
        without: vec![],
    };
    module.visit(&mut visitor);
    (visitor.count, visitor.without)
}

/// Token ids below `vocab_size`, the same at every call.
pub fn tokens(batch: usize, seq: usize, vocab_size: usize, device: &Device) -> Tensor<2, Int> {
    let draw = |value: f64| (value.abs() * 1e6) as i32 % vocab_size as i32;
    let ids: Vec<i32> = normal_values(batch * seq, 99)
        .into_iter()
        .map(draw)
        .collect();
    Tensor::from_data(TensorData::new(ids, [batch, seq]), device)
}

/// The message of the panic of `call`.
pub fn panic_text<T>(call: impl FnOnce() -> T) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call))
        .err()
        .expect("a panic");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
        .expect("a text")
}
