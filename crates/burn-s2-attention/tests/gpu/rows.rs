//! Linear layers, norms and rotary positions of a few rows, which have kernels of their own, beside those of many rows, which are Burn's:
//! on the CPU, since Burn multiplies f32 matrices with fewer digits on tensor cores (TF32).

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};
use burn_s2_attention::Layout;
use burn_s2_attention::module::{RopeConfig, column_major};

use crate::common::gpu::device;
use crate::common::models::{model, variants};
use crate::common::panics::panic_text;
use crate::common::products::product_error;
use crate::common::tensors::{assert_close, normal};

const MANY: usize = 40;

/// What results may differ by where all products keep the digits of f32.
const EXACT: f64 = 2e-5;

/// Norm, gate, up, activation and down, with and without biases, of weights that lie either way.
#[test]
fn few_rows_have_the_results_of_many() {
    let cpu = Device::flex();
    for config in variants() {
        let exact = model(config, &cpu);
        let d_model = exact.embedding.weight.dims()[1];
        let x = normal::<3>([1, MANY, d_model], 3, &cpu);
        let many = exact.layers[0].feed_forward(x.clone());
        let of_many = exact.logits(many.clone());
        let rows = exact.fork(&device());
        for model in [rows.clone(), column_major(rows)] {
            for (first, count) in [(0, 1), (7, 3), (20, 16)] {
                let x = x.clone().narrow(1, first, count).to_device(&device());
                let few = model.layers[0].feed_forward(x);
                let expected = many.clone().narrow(1, first, count);
                assert_close(few.clone(), expected, EXACT);
                let expected = of_many.clone().narrow(1, first, count);
                assert_close(model.logits(few), expected, EXACT);
            }
        }
    }
}

/// Rows of a batch are rows like those of a sequence.
#[test]
fn few_rows_of_a_batch() {
    let device = device();
    let config = variants().into_iter().next().unwrap();
    let model = model(config, &device);
    let d_model = model.embedding.weight.dims()[1];
    let x = normal::<3>([3, 4, d_model], 3, &device);
    let layer = &model.layers[0];
    let rows = layer.feed_forward(x.clone().reshape([1, 12, d_model]));
    let batch = layer.feed_forward(x).reshape([1, 12, d_model]);
    assert_close(batch, rows, 0.0);
}

/// No rows are Burn's, and so is what it refuses.
#[test]
fn no_rows_and_rows_that_do_not_fit() {
    let device = device();
    let config = variants().into_iter().next().unwrap();
    let model = model(config, &device);
    let layer = &model.layers[0];
    let d_model = model.embedding.weight.dims()[1];
    for rows in [[1, 0], [2, 0]] {
        let x = Tensor::<3>::zeros([rows[0], rows[1], d_model], &device);
        assert_eq!(layer.mlp.forward(x).dims(), [rows[0], rows[1], d_model]);
    }
    for rows in [2, 20] {
        let x = Tensor::<3>::zeros([1, rows, d_model + 1], &device);
        let message = panic_text(|| layer.mlp.forward(x));
        let expected = format!("axis 2 expected {d_model}, got {}", d_model + 1);
        assert!(message.contains(&expected), "{message}");
    }
}

/// Where gradients are asked for, a few rows have them.
#[test]
fn few_rows_have_gradients() {
    let device = device();
    for config in variants() {
        let with = model(config, &device.clone().autodiff());
        let d_model = with.embedding.weight.dims()[1];
        let x = normal::<3>([1, 2, d_model], 5, &device);
        let plain = with.valid().layers[0].feed_forward(x.clone());
        let x = Tensor::from_inner(x).require_grad();
        let out = with.layers[0].feed_forward(x.clone());
        assert_close(
            out.clone().inner(),
            plain,
            2e-5 + 4.0 * product_error(&device),
        );
        let grads = out.square().sum().backward();
        assert!(x.grad(&grads).is_some());
        let mlp = &with.layers[0].mlp;
        for weight in [&mlp.up.weight, &mlp.down.weight] {
            assert!(weight.val().grad(&grads).is_some());
        }
    }
}

/// Positions of a table, whose kernel reads the heads of a wider projection too, beside those from a start.
#[test]
fn rows_are_turned_by_their_positions() {
    let device = device();
    for width in [8, 6, 64] {
        let rope = RopeConfig::new().init(width);
        let heads = normal::<4>([1, 30, 5, width], 9, &device);
        let x = heads.clone().narrow(2, 1, 3);
        let from_5 = rope.forward(x.clone(), Layout::Bshd, &[5]);
        let positions = Tensor::<1, Int>::arange(5..35, (&device, DType::I32));
        let turned = rope.forward_at(x.clone(), Layout::Bshd, positions.clone(), 40);
        assert_close(turned, from_5.clone(), 2e-6);
        let swapped = x.swap_dims(1, 2);
        let turned = rope.forward_at(swapped, Layout::Bhsd, positions, 40);
        assert_close(turned.swap_dims(1, 2), from_5, 2e-6);
    }
}
