//! The transformer: what it computes.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};
use burn_s2_attention::DenseLayers;
use burn_s2_attention::model::{HybridTransformer, HybridTransformerConfig};

use super::gradients::parameters_without_gradient;
use crate::common::cast::cast;
use crate::common::host::values;
use crate::common::models::{self, VOCAB, config, schedule, variants};
use crate::common::parameters::randomize;
use crate::common::tensors::{assert_close, distance, normal, tokens};

const SEQ: usize = 90;

fn model(config: HybridTransformerConfig) -> HybridTransformer {
    models::model(config, &Device::flex())
}

fn input() -> Tensor<2, Int> {
    tokens(2, SEQ, VOCAB, &Device::flex())
}

#[test]
fn later_tokens_do_not_reach_back() {
    for config in variants() {
        let model = model(config);
        let tokens = input();
        let others = (tokens.clone().narrow(1, 40, SEQ - 40) + 1).remainder_scalar(VOCAB as i32);
        let changed = Tensor::cat(vec![tokens.clone().narrow(1, 0, 40), others], 1);
        let (logits, logits_changed) = (model.forward(tokens), model.forward(changed));
        let before = |logits: &Tensor<3>| values(logits.clone().narrow(1, 0, 40));
        assert_eq!(before(&logits), before(&logits_changed));
        assert!(
            distance(
                logits.narrow(1, 40, SEQ - 40),
                logits_changed.narrow(1, 40, SEQ - 40)
            ) > 0.1
        );
    }
}

#[test]
fn shorter_prompts_give_the_first_logits() {
    for config in variants() {
        let model = model(config);
        let tokens = input();
        let whole = model.forward(tokens.clone());
        for seq in [1, 7, 8, 33] {
            assert_close(
                model.forward(tokens.clone().narrow(1, 0, seq)),
                whole.clone().narrow(1, 0, seq),
                1e-5,
            );
        }
    }
}

#[test]
fn layers_follow_the_schedule() {
    let dense = |dense_layers, num_layers| -> Vec<bool> {
        let config = HybridTransformerConfig::new(
            VOCAB,
            32,
            num_layers,
            4,
            schedule().with_dense_layers(dense_layers),
        );
        let model = config.init(&Device::flex());
        model
            .layers
            .iter()
            .map(|layer| layer.attention.pattern().is_dense())
            .collect()
    };
    assert_eq!(dense(DenseLayers::First(2), 4), [true, true, false, false]);
    assert_eq!(
        dense(DenseLayers::Every(2), 5),
        [false, true, false, true, false]
    );
    assert_eq!(dense(DenseLayers::None, 2), [false, false]);
}

/// The residual stream by hand: what `forward` adds up.
#[test]
fn is_the_sum_of_its_parts() {
    let config = config()
        .with_embedding_multiplier(3.0)
        .with_logit_multiplier(0.25);
    let model = model(config);
    let tokens = input();
    let mut x = model.embedding.forward(tokens.clone()) * 3.0;
    assert_close(model.embed(tokens.clone()), x.clone(), 1e-6);
    for layer in &model.layers {
        x = x.clone() + layer.attention.forward(layer.attention_norm.forward(x));
        x = x.clone() + layer.mlp.forward(layer.mlp_norm.forward(x));
    }
    let hidden = model.norm.forward(x);
    assert_close(model.hidden_states(tokens.clone()), hidden.clone(), 1e-6);
    let logits = hidden.matmul(model.embedding.weight.val().transpose().unsqueeze::<3>()) * 0.25;
    assert_close(model.forward(tokens), logits, 1e-6);
}

#[test]
fn tied_head_is_no_second_parameter() {
    let tied = config().init(&Device::flex());
    let untied = config().with_tied_embeddings(false).init(&Device::flex());
    assert_eq!(tied.vocab_size(), VOCAB);
    assert_eq!(untied.num_params() - tied.num_params(), VOCAB * 32);

    // An untied model with the same head computes the same.
    let tied = randomize(tied, 0.15);
    let mut untied = randomize(untied, 0.15);
    untied.embedding = tied.embedding.clone();
    untied.layers = tied.layers.clone();
    untied.norm = tied.norm.clone();
    let head = untied.head.as_mut().unwrap();
    head.weight = head
        .weight
        .clone()
        .map(|_| tied.embedding.weight.val().transpose());
    assert_close(tied.forward(input()), untied.forward(input()), 1e-6);
}

#[test]
fn gradient_reaches_all_parameters() {
    let device = Device::flex().autodiff();
    let expected: [usize; 5] = [2 + 3 * 7, 4 + 3 * 12, 2 + 3 * 11, 2 + 3 * 7, 2 + 3 * 7];
    for (config, expected) in variants().into_iter().zip(expected) {
        let model = models::model(config.clone(), &device);
        let logits = model.forward(tokens(2, SEQ, VOCAB, &device));
        let weight = normal([2, SEQ, VOCAB], 50, &device);
        let gradients = (logits * weight).sum().backward();
        assert_eq!(
            parameters_without_gradient(&model, &gradients),
            (expected, vec![]),
            "{config}"
        );
    }
}

/// With the head tied, the embedding is moved by both its uses.
#[test]
fn tied_gradient_has_both_parts() {
    let device = Device::flex().autodiff();
    let model = models::model(config(), &device);
    let gradient = |embed: &dyn Fn(&HybridTransformer) -> Tensor<3>| {
        let weight = normal([1, 3, VOCAB], 51, &device);
        let gradients = (embed(&model) * weight).sum().backward();
        model.embedding.weight.val().grad(&gradients).unwrap()
    };
    let tokens = || Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
    let both = gradient(&|model| model.forward(tokens()));
    let head_alone = gradient(&|model| model.logits(model.hidden_states(tokens()).detach()));
    let input_alone = gradient(&|model| {
        model.hidden_states(tokens()).matmul(
            model
                .embedding
                .weight
                .val()
                .detach()
                .transpose()
                .unsqueeze::<3>(),
        )
    });
    assert_close(both, head_alone + input_alone, 1e-5);
}

#[test]
fn dropout_acts_in_training_alone() {
    let device = Device::flex().autodiff();
    let model = models::model(config().with_dropout(0.3), &device);
    let tokens = || tokens(1, SEQ, VOCAB, &device);
    let twice = [model.forward(tokens()), model.forward(tokens())];
    assert!(distance(twice[0].clone().inner(), twice[1].clone().inner()) > 0.01);

    let valid = model.valid();
    let tokens = tokens().inner();
    assert_eq!(
        values(valid.forward(tokens.clone())),
        values(valid.forward(tokens))
    );
}

#[test]
fn layers_share_cosines_and_sines() {
    let model = config().init(&Device::flex());
    let text = |layer: usize| format!("{:?}", model.layers[layer].attention.rope().unwrap());
    assert!(!text(2).contains("cos"));
    model.layers[0]
        .attention
        .forward(normal([1, 5, 32], 52, &Device::flex()));
    assert!(
        text(2).contains("cos"),
        "what layer 0 computed is there for layer 2"
    );
}

#[test]
fn bf16_is_near_f64_of_the_same_weights() {
    for config in variants() {
        let rounded = cast(model(config), DType::BF16);
        let out = rounded.forward(input());
        assert_eq!(out.dtype(), DType::BF16);
        let exact = cast(rounded, DType::F64).forward(input());
        assert_eq!(exact.dtype(), DType::F64);
        let norm = |x: Tensor<3>| values(x.square().sum().sqrt())[0];
        let error = norm(out.cast(DType::F64) - exact.clone()) / norm(exact);
        // A handful of roundings of 2^-9 per layer.
        assert!(error > 1e-3 && error < 2e-2, "{error:e}");
    }
}

#[test]
fn fresh_weights_have_the_documented_deviation() {
    let config = HybridTransformerConfig::new(512, 128, 8, 4, schedule())
        .with_bias(true)
        .with_init_std(0.03);
    let model = config.init(&Device::flex());
    let deviation = |weight: Tensor<2>| {
        let values = values(weight);
        (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
    };
    let is = |weight: Tensor<2>, expected: f64| {
        let found = deviation(weight);
        assert!(
            (found / expected - 1.0).abs() < 0.03,
            "{found} is not {expected}"
        );
    };
    is(model.embedding.weight.val(), 0.03);
    let layer = &model.layers[5];
    is(layer.mlp.up.weight.val(), 0.03);
    is(layer.mlp.gate.as_ref().unwrap().weight.val(), 0.03);
    is(layer.attention.output.weight.val(), 0.03 / 4.0);
    is(layer.mlp.down.weight.val(), 0.03 / 4.0);
    assert!(
        values(layer.mlp.down.bias.as_ref().unwrap().val())
            .iter()
            .all(|&bias| bias == 0.0)
    );
    assert!(
        values(layer.attention.output.bias.as_ref().unwrap().val())
            .iter()
            .all(|&bias| bias == 0.0)
    );
}

#[test]
fn display_tells_each_layers_pattern() {
    let model = config().init(&Device::flex());
    let [dense, sparse] = [0, 1].map(|layer| model.layers[layer].attention.pattern().to_string());
    assert_ne!(dense, sparse);
    assert_eq!(
        model.to_string(),
        format!(
            "HybridTransformer {{
  embedding: Embedding {{n_embedding: 50, d_model: 32, params: 1600}}
  layer 0: {dense}, head_dim 8, SwiGlu mlp 48, 7744 params
  layer 1: {sparse}, head_dim 8, SwiGlu mlp 48, 7744 params
  layer 2: {sparse}, head_dim 8, SwiGlu mlp 48, 7744 params
  norm: RmsNorm {{d_model: 32, epsilon: 0.00001, params: 32}}
  head: tied to the embedding
  params: 24864
}}"
        )
    );
    let untied = config()
        .with_tied_embeddings(false)
        .init(&Device::flex())
        .to_string();
    assert!(
        untied.contains("head: Linear {d_input: 32, d_output: 50, bias: false, params: 1600}"),
        "{untied}"
    );
}
