//! Layers and the model on packed documents: what they give each document alone.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor};
use burn_s2_attention::model::HybridTransformer;
use burn_s2_attention::module::{RopeConfig, S2AttentionConfig};
use burn_s2_attention::{Layout, PackedSequences, PatternConfig};

use super::gradients::parameters_without_gradient;
use crate::common::host::values;
use crate::common::models::{self, VOCAB, config};
use crate::common::panics::panic_text;
use crate::common::tensors::{assert_close, distance, largest, normal, tokens};

/// Tokens of documents, one of which goes from the first row of the batch to the second.
const LENGTHS: [usize; 6] = [37, 1, 0, 70, 5, 67];

fn documents() -> PackedSequences {
    PackedSequences::from_lengths(&LENGTHS).unwrap()
}

/// First token and length of each document that is not empty.
fn parts() -> impl Iterator<Item = (usize, usize)> {
    let starts = LENGTHS.iter().scan(0, |end, length| {
        *end += length;
        Some((*end - length, *length))
    });
    starts.filter(|(_, length)| *length > 0)
}

fn model(rope: Option<RopeConfig>, device: &Device) -> HybridTransformer {
    models::model(config().with_rope(rope), device)
}

/// Logits of each document by itself, as one batch.
fn separately(model: &HybridTransformer, tokens: Tensor<2, Int>) -> Tensor<3> {
    let [batch, seq] = tokens.dims();
    let joined = tokens.reshape([1, batch * seq]);
    let logits =
        parts().map(|(start, length)| model.forward(joined.clone().narrow(1, start, length)));
    Tensor::cat(logits.collect(), 1).reshape([batch, seq, VOCAB])
}

struct All<'a>(&'a Gradients, Vec<Vec<f64>>);

impl ModuleVisitor for All<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.push(values(param.val().grad(self.0).unwrap()));
    }
}

/// Logits and the gradients of all parameters are those of separate documents.
#[test]
fn the_model_sees_each_document_alone() {
    let device = Device::flex().autodiff();
    for rope in [Some(RopeConfig::new()), None] {
        let model = model(rope, &device);
        let tokens = tokens(2, 90, VOCAB, &device);
        let weight = normal([2, 90, VOCAB], 50, &device);
        let packed = model.forward_packed(tokens.clone(), &documents());
        let separate = separately(&model, tokens.clone());
        assert_close(packed.clone(), separate.clone(), 2e-5);
        let [packed_gradients, gradients] = [packed, separate].map(|logits| {
            let gradients = (logits * weight.clone()).sum().backward();
            let (_, without) = parameters_without_gradient(&model, &gradients);
            assert!(without.is_empty(), "{without:?}");
            let mut all = All(&gradients, Vec::new());
            model.visit(&mut all);
            all.1
        });
        for (packed, separate) in packed_gradients.iter().zip(&gradients) {
            assert_eq!(packed.len(), separate.len());
            let scale = largest(separate.iter().map(|x| x.abs()));
            let pairs = packed.iter().zip(separate);
            let worst = largest(pairs.map(|(a, b)| (a - b).abs()));
            assert!(worst <= 2e-5 * scale, "{worst:e} of {scale:e}");
        }
        // The same tokens without documents are another text.
        let rows = model.forward(tokens.clone());
        assert!(distance(rows, model.forward_packed(tokens, &documents())) > 0.05);
    }
}

/// Other documents, and padding behind the last, do not reach a document.
#[test]
fn other_documents_do_not_reach_a_document() {
    let device = Device::flex();
    let model = model(Some(RopeConfig::new()), &device);
    let tokens = tokens(2, 90, VOCAB, &device);
    let others = (tokens.clone() + 1).remainder_scalar(VOCAB as i32);
    let flat = |tensor: &Tensor<2, Int>| tensor.clone().reshape([1, 180]);
    // All but the document of 70 tokens.
    let changed = Tensor::cat(
        vec![
            flat(&others).narrow(1, 0, 38),
            flat(&tokens).narrow(1, 38, 70),
            flat(&others).narrow(1, 108, 72),
        ],
        1,
    );
    let logits = model.forward_packed(flat(&tokens), &documents());
    let longer = PackedSequences::from_lengths(&LENGTHS[..5]).unwrap();
    for documents in [documents(), longer] {
        let changed = model.forward_packed(changed.clone(), &documents);
        let of =
            |logits: &Tensor<3>, start, length| values(logits.clone().narrow(1, start, length));
        assert_eq!(of(&changed, 38, 70), of(&logits, 38, 70));
        assert_ne!(of(&changed, 0, 38), of(&logits, 0, 38));
    }
}

/// Rows of rotations are kept by documents: those of one packing are not taken for another.
#[test]
fn rotations_begin_anew_in_each_document() {
    let device = Device::flex();
    let rope = RopeConfig::new().init(16);
    let x = normal([1, 180, 3, 16], 60, &device);
    let parts = |lengths: &[usize]| {
        let documents = PackedSequences::from_lengths(lengths).unwrap();
        let packed = rope.forward_packed(x.clone(), Layout::Bshd, &documents);
        let mut start = 0;
        for &length in lengths.iter().filter(|length| **length > 0) {
            let part = |tensor: &Tensor<4>| tensor.clone().narrow(1, start, length);
            let alone = rope.forward(part(&x), Layout::Bshd, &[0]);
            assert_close(part(&packed), alone, 0.0);
            start += length;
        }
    };
    parts(&LENGTHS);
    parts(&[100, 80]);
    parts(&[3]);
    parts(&LENGTHS);
}

#[test]
fn a_layer_refuses_documents_that_do_not_fit() {
    let device = Device::flex();
    let layer = S2AttentionConfig::new(32, 4, PatternConfig::local_stride(1, 3, 8, 4));
    let layer = layer.with_rope(Some(RopeConfig::new())).init(&device);
    let x = normal([1, 10, 32], 61, &device);
    let refused =
        |documents: PackedSequences| panic_text(|| layer.forward_packed(x.clone(), &documents));
    let text = refused(PackedSequences::new(&[0, 4, 10], &[0, 5, 11]).unwrap());
    assert!(text.contains("cu_seqlens"), "{text}");
    let text = refused(PackedSequences::from_lengths(&[4, 7]).unwrap());
    assert!(
        text.contains("11 tokens") && text.contains("1 of 10"),
        "{text}"
    );
    let text = panic_text(|| {
        let x = normal([2, 10, 32], 61, &device);
        layer.forward_packed(x, &PackedSequences::from_lengths(&[4, 6]).unwrap())
    });
    assert!(text.contains("batch of 1"), "{text}");
}
