//! The transformer on a GPU is the one on the CPU.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_s2_attention::PackedSequences;
use burn_s2_attention::model::HybridTransformer;

use crate::common::host::values;
use crate::common::models::{self, VOCAB, config};
use crate::common::products::product_error;
use crate::common::tensors::{largest, normal, tokens};

const SEQ: usize = 90;

/// Logits, and the gradients of all parameters by a random weighting of the logits.
fn run(
    model: &HybridTransformer,
    documents: Option<&PackedSequences>,
    device: &Device,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let tokens = tokens(2, SEQ, VOCAB, device);
    let logits = match documents {
        Some(documents) => model.forward_packed(tokens, documents),
        None => model.forward(tokens),
    };
    let weight = normal([2, SEQ, VOCAB], 50, device);
    let gradients = (logits.clone() * weight).sum().backward();
    let gradients = GradientsParams::from_grads(gradients, model);
    let mut all = Gradients(gradients, Vec::new());
    model.visit(&mut all);
    (values(logits), all.1)
}

struct Gradients(GradientsParams, Vec<Vec<f64>>);

impl burn::module::ModuleVisitor for Gradients {
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        self.1
            .push(values(self.0.get::<D>(param.id).expect("a gradient")));
    }
}

#[test]
fn logits_and_gradients_are_those_of_the_cpu() {
    held(None);
}

#[test]
fn those_of_documents_too() {
    held(Some(
        PackedSequences::from_lengths(&[70, 1, 0, 100, 9]).unwrap(),
    ));
}

fn held(documents: Option<PackedSequences>) {
    let documents = documents.as_ref();
    let cpu = Device::flex().autodiff();
    let gpu = crate::device().autodiff();
    let model = models::model(config(), &cpu);
    let (logits, gradients) = run(&model, documents, &cpu);
    let (gpu_logits, gpu_gradients) = run(&model.fork(&gpu), documents, &gpu);
    // Where products lose more digits than f32 has, thirty times what one of them loses: of the layers and of their gradients.
    let tolerance = (30.0 * product_error(&crate::device())).max(1e-4);
    let close = |name: &str, actual: &[f64], expected: &[f64]| {
        assert_eq!(actual.len(), expected.len());
        let scale = largest(expected.iter().map(|x| x.abs()));
        let pairs = actual.iter().zip(expected);
        let worst = largest(pairs.map(|(a, e)| (a - e).abs()));
        assert!(
            worst <= tolerance * scale,
            "{name}: {worst:e} of {scale:e}, {tolerance:e} is accepted"
        );
    };
    close("logits", &gpu_logits, &logits);
    assert_eq!(gpu_gradients.len(), gradients.len());
    for (at, (actual, expected)) in gpu_gradients.iter().zip(&gradients).enumerate() {
        close(&format!("gradient {at}"), actual, expected);
    }
}
