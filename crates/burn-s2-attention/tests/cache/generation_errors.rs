//! Generations that cannot be honoured.

use std::ops::ControlFlow;

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use burn_s2_attention::model::{
    FinishReason, GenerationConfig, GenerationError, Generator, HybridTransformer,
    HybridTransformerConfig,
};
use burn_s2_attention::{LayerSchedule, PatternConfig, Rule};

use crate::common::panics::panic_text;

fn model(pattern: PatternConfig) -> HybridTransformer {
    HybridTransformerConfig::new(20, 16, 1, 2, LayerSchedule::new(pattern)).init(&Device::flex())
}

fn pattern() -> PatternConfig {
    PatternConfig::local_stride(1, 2, 8, 2)
}

fn refused(prompts: &[Vec<u32>], config: &GenerationConfig) -> GenerationError {
    let model = model(pattern());
    let go_on = |_| ControlFlow::Continue(());
    let error = model.try_generate(prompts, config, go_on).unwrap_err();
    let panics = panic_text(|| model.generate(prompts, config, go_on));
    assert_eq!(panics, error.to_string());
    error
}

#[test]
fn prompts_that_mean_nothing_are_refused() {
    let config = GenerationConfig::new(3);
    let error = refused(&[vec![1], vec![]], &config);
    assert_eq!(error, GenerationError::EmptyPrompt { prompt: 1 });
    let error = refused(&[vec![1, 20]], &config);
    let text = error.to_string();
    assert!(text.contains("prompt 0") && text.contains("token 20") && text.contains("below 20"));
    let error = refused(&[vec![1]], &config.with_stop_tokens(vec![19, 20, 21]));
    let expected = GenerationError::StopToken {
        token: 20,
        vocab_size: 20,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("stop token 20") && error.to_string().contains("below 20"));
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let prompts = [vec![1]];
    let config = || GenerationConfig::new(3);
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        let error = refused(&prompts, &config().with_temperature(value));
        assert!(matches!(error, GenerationError::Temperature { .. }));
        assert!(error.to_string().contains(&value.to_string()));
    }
    for value in [0.0, -0.5, 1.5, f64::NAN] {
        let error = refused(&prompts, &config().with_top_p(Some(value)));
        assert!(matches!(error, GenerationError::TopP { .. }));
        assert!(error.to_string().contains(&value.to_string()));
    }
    assert_eq!(
        refused(&prompts, &config().with_top_k(Some(0))),
        GenerationError::TopK
    );
    let error = refused(&prompts, &config().with_prefill_chunk(0));
    assert_eq!(error, GenerationError::PrefillChunk);
}

#[test]
fn a_model_that_sees_the_future_is_refused() {
    let rule = Rule::SlidingWindow {
        left: 1,
        right: Some(2),
    };
    let model = model(PatternConfig::new(rule, 8, 2));
    let go_on = |_| ControlFlow::Continue(());
    let error = model.try_generate(&[vec![1]], &GenerationConfig::new(3), go_on);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("after its query"), "{text}");
}

/// NaN is no likeliest token.
#[test]
fn a_broken_model_is_told() {
    let mut model = model(pattern());
    let broken = Tensor::full([20, 16], f64::NAN, &Device::flex());
    model.embedding.weight = Param::from_tensor(broken);
    let go_on = |_| ControlFlow::Continue(());
    let error = model.try_generate(&[vec![1]], &GenerationConfig::new(3), go_on);
    assert_eq!(error.unwrap_err(), GenerationError::Logits);
}

/// One text of three has no next token: the step gives none of any, what came before it is all that the texts have, and no later
/// step goes on in silence.
#[test]
fn a_step_that_fails_is_the_last() {
    let layers = LayerSchedule::new(pattern());
    let config = HybridTransformerConfig::new(20, 16, 1, 2, layers).with_tied_embeddings(false);
    let mut model = config.init(&Device::flex());
    // Who reads token 5 gives NaN.
    let broken = Tensor::full([1, 16], f64::NAN, &Device::flex());
    let embedding = model.embedding.weight.val();
    model.embedding.weight = Param::from_tensor(embedding.slice_assign(5..6, broken));
    let prompts = [vec![1, 2], vec![1, 1, 1, 1, 1, 5], vec![3]];
    let config = GenerationConfig::new(4).with_prefill_chunk(3);
    let mut generator = Generator::new(&model, &prompts, &config).unwrap();
    let mut told = vec![vec![]; 3];
    let error = loop {
        match generator.step() {
            Ok(tokens) => tokens
                .iter()
                .for_each(|token| told[token.prompt].push(token.token)),
            Err(error) => break error,
        }
    };
    assert_eq!(error, GenerationError::Logits);
    assert!(!told[0].is_empty());
    for _ in 0..3 {
        assert_eq!(generator.step(), Err(GenerationError::Logits));
    }
    assert!(!generator.is_done());
    let sequences = generator.finish().sequences;
    assert_eq!(sequences.len(), told.len());
    for (sequence, told) in sequences.into_iter().zip(told) {
        assert_eq!(sequence.tokens, told);
        assert_eq!(sequence.finish, FinishReason::Stopped);
    }
}
