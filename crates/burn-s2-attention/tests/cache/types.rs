//! The float types of Burn's CPU backend.

use burn::tensor::{DType, Tensor};
use burn_s2_attention::cache::KvCacheConfig;

use super::attend::{Tokens, layers, new, step};
use super::model::{cache, chunked, texts};
use crate::common::cast::cast;
use crate::common::host::values;
use crate::common::models::{config, model};
use crate::common::tensors::distance;

/// Types of pages: as near to f64 as the ordinary call in that type is.
#[test]
fn every_float_type_is_as_good_as_the_ordinary_call() {
    let layer = &layers()[0];
    for (dtype, most) in [(DType::F64, 1e-13), (DType::F16, 2e-3), (DType::BF16, 2e-2)] {
        let tokens = Tokens::new(layer, 120, 6).map(|rows| rows.cast(dtype));
        let mut cache = new(layer, dtype, &KvCacheConfig::new(120));
        let sequence = cache.add();
        let mut outs = vec![];
        let mut start = 0;
        for len in [50, 30, 8].into_iter().chain([1; 32]) {
            outs.push(step(&mut cache, vec![(sequence, tokens.part(start, len))]).remove(0));
            start += len;
        }
        let out = Tensor::cat(outs, 1);
        assert_eq!(out.dtype(), dtype);
        let exact = tokens.map(|rows| rows.cast(DType::F64)).at_once(layer);
        let error = distance(out, exact.clone());
        let plain = distance(tokens.at_once(layer), exact);
        assert!(
            error <= most && plain <= most,
            "{dtype:?}: {error:e}, {plain:e}"
        );
    }
}

/// The cache has the type of the parameters, and loses no more than they do.
#[test]
fn bf16_is_near_f64_of_the_same_weights() {
    let rounded = cast(model(config(), &crate::device()), DType::BF16);
    let text = texts(1).remove(0);
    let mut cache = cache(&rounded);
    assert_eq!(cache.dtype(), DType::BF16);
    let logits = chunked(&rounded, &mut cache, &text, &[50, 20, 1]);
    assert_eq!(logits.dtype(), DType::BF16);
    let exact = cast(rounded, DType::F64).forward(text);
    let norm = |x: Tensor<3>| values(x.square().sum().sqrt())[0];
    let error = norm(logits.cast(DType::F64) - exact.clone()) / norm(exact);
    assert!(error > 1e-3 && error < 2e-2, "{error:e}");
}

/// Also the rotations are in f64.
#[test]
fn an_f64_model_loses_nothing() {
    let model = cast(model(config(), &crate::device()), DType::F64);
    let text = texts(1).remove(0);
    let mut cache = cache(&model);
    let logits = chunked(&model, &mut cache, &text, &[50, 20, 1]);
    assert_eq!(logits.dtype(), DType::F64);
    let distance = distance(logits, model.forward(text));
    assert!(distance < 1e-12, "{distance:e}");
}
