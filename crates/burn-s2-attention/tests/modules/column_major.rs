//! Weights stored column by column: nothing that they compute changes.

use burn::backend::Flex;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};
use burn_s2_attention::model::HybridTransformer;
use burn_s2_attention::module::column_major;

use crate::common::models::{VOCAB, config, model, variants};
use crate::common::tensors::{assert_close, tokens};

#[test]
fn logits_stay_as_they_are() {
    for config in variants() {
        let model = model(config, &Device::flex());
        let tokens = tokens(2, 40, VOCAB, &Device::flex());
        let logits = model.forward(tokens.clone());
        let stored = column_major(model.clone());
        assert_close(stored.forward(tokens), logits, 1e-5);
        assert_eq!(Weights::of(&stored).shapes, Weights::of(&model).shapes);
    }
}

/// Burn still says which weights are those of linear layers: five in each of three layers, and here a head. They lie column by column
/// then, and nothing else does.
#[test]
fn linear_weights_are_stored_by_columns() {
    let config = config().with_tied_embeddings(false);
    let (before, after) = {
        let model = model(config, &Device::flex());
        let stored = column_major(model.clone());
        (Weights::of(&model), Weights::of(&stored))
    };
    assert_eq!(before.linear, 3 * 5 + 1);
    assert_eq!(after.linear, before.linear);
    assert!(before.shapes.len() > before.linear);
    assert_eq!(before.by_columns, 0);
    assert_eq!(after.by_columns, after.linear);
}

/// Parameters stay the same ones, with gradients where they had them, and records do not know of the order.
#[test]
fn parameters_stay_who_they_are() {
    let device = Device::flex().autodiff();
    let model = model(config(), &device);
    let stored = column_major(model.clone());
    assert_eq!(Weights::of(&stored).ids, Weights::of(&model).ids);

    let tokens = tokens(1, 20, VOCAB, &device);
    let gradients = |of: &HybridTransformer| {
        let weight = of.layers[1].mlp.up.weight.val();
        let gradients = of.forward(tokens.clone()).square().sum().backward();
        weight.grad(&gradients).expect("a gradient")
    };
    assert_close(gradients(&stored), gradients(&model), 1e-4);

    let fresh = config().init(&device);
    let loaded = fresh.load_record(stored.into_record());
    assert_close(loaded.forward(tokens.clone()), model.forward(tokens), 1e-5);
}

#[derive(Default)]
struct Weights {
    linear: usize,
    within: usize,
    /// Matrices of linear layers whose columns lie one after the other.
    by_columns: usize,
    shapes: Vec<Vec<usize>>,
    ids: Vec<ParamId>,
}

impl Weights {
    fn of(model: &HybridTransformer) -> Self {
        let mut weights = Self::default();
        model.visit(&mut weights);
        weights
    }
}

impl ModuleVisitor for Weights {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.within += usize::from(container == "Struct:Linear");
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.within -= usize::from(container == "Struct:Linear");
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.shapes.push(param.val().dims().to_vec());
        self.ids.push(param.id);
        if self.within > 0 && D == 2 {
            self.linear += 1;
            let tensor = param.val().try_into_primitive::<Flex>();
            let Ok(tensor) = tensor else { return };
            let strides = tensor.layout().strides();
            self.by_columns += usize::from(strides[0] == 1 && strides[1] > 1);
        }
    }
}
