//! Weights stored column by column: nothing that they compute changes.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
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
        let shapes = |model| {
            let mut weights = Weights::default();
            Module::visit(model, &mut weights);
            weights.shapes
        };
        assert_eq!(shapes(&stored), shapes(&model));
    }
}

/// Burn still says which weights are those of linear layers: five in each of three layers. The head is the embedding.
#[test]
fn linear_weights_are_found() {
    let mut weights = Weights::default();
    model(config(), &Device::flex()).visit(&mut weights);
    assert_eq!(weights.linear, 3 * 5);
    assert!(weights.shapes.len() > weights.linear);
}

#[derive(Default)]
struct Weights {
    linear: usize,
    within: usize,
    shapes: Vec<Vec<usize>>,
}

impl ModuleVisitor for Weights {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.within += usize::from(container == "Struct:Linear");
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.within -= usize::from(container == "Struct:Linear");
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.linear += usize::from(self.within > 0 && D == 2);
        self.shapes.push(param.val().dims().to_vec());
    }
}
