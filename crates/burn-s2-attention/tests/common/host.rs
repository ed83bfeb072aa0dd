//! Tensors on the host.

use burn::tensor::Tensor;

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    // On the host: not every device has f64.
    tensor.into_data().convert::<f64>().try_to_vec().unwrap()
}
