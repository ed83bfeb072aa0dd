//! How exact Burn's products of f32 matrices are: on tensor cores it may give them fewer digits (TF32).

use burn::tensor::{Device, Tensor};

use super::host::values;
use super::tensors::{normal, normal_values};

/// The largest error of a product relative to the product's length, of rows and widths like those of the models here.
pub fn product_error(device: &Device) -> f64 {
    let errors = [1, 16, 120, 180].into_iter().flat_map(|rows| {
        [[32, 96], [48, 32], [32, 50]].map(|[depth, columns]| {
            let shapes = [[rows, depth], [depth, columns]];
            let [a, b] = [shapes[0], shapes[1]].map(|shape| normal::<2>(shape, 7, device));
            error(values(Tensor::matmul(a, b)), rows, depth, columns)
        })
    });
    errors.fold(0.0, f64::max)
}

fn error(product: Vec<f64>, rows: usize, depth: usize, columns: usize) -> f64 {
    // The values on the device are those in f32.
    let host = |count| {
        normal_values(count, 7)
            .into_iter()
            .map(|x| f64::from(x as f32))
    };
    let (a, b): (Vec<f64>, Vec<f64>) = (
        host(rows * depth).collect(),
        host(depth * columns).collect(),
    );
    let (mut missed, mut length) = (0.0, 0.0);
    for (at, value) in product.into_iter().enumerate() {
        let (row, column) = (at / columns, at % columns);
        let terms = (0..depth).map(|k| a[row * depth + k] * b[k * columns + column]);
        let exact: f64 = terms.sum();
        missed += (value - exact).powi(2);
        length += exact.powi(2);
    }
    (missed / length).sqrt()
}
