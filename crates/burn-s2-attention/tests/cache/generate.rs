//! Writing with a model: what it would give without a cache.

use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_s2_attention::cache::KvCacheConfig;
use burn_s2_attention::model::{
    FinishReason, GeneratedToken, Generation, GenerationConfig, Generator, HybridTransformer,
    HybridTransformerConfig,
};
use burn_s2_attention::{LayerSchedule, PatternConfig, Rule};

use crate::common::host::values;
use crate::common::models::{self, VOCAB, config};
use crate::common::tensors::tokens;

fn model() -> HybridTransformer {
    models::model(config(), &Device::flex())
}

/// Prompts of these lengths.
fn prompts(lengths: &[usize]) -> Vec<Vec<u32>> {
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let all = tokens(lengths.len(), longest, VOCAB, &Device::flex()).into_data();
    let all: Vec<i32> = all.try_to_vec().unwrap();
    let rows = all.chunks(longest).zip(lengths);
    rows.map(|(row, length)| row[..*length].iter().map(|token| *token as u32).collect())
        .collect()
}

fn go_on(_: GeneratedToken) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn texts(generation: &Generation) -> Vec<Vec<u32>> {
    let sequences = generation.sequences.iter();
    sequences.map(|sequence| sequence.tokens.clone()).collect()
}

/// The likeliest token after each whole text, by a forward pass over all of it.
fn greedy(model: &HybridTransformer, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut text: Vec<i32> = prompt.iter().map(|token| *token as i32).collect();
    for _ in 0..count {
        let len = text.len();
        let input = TensorData::new(text.clone(), [1, len]);
        let input = Tensor::<2, Int>::from_data(input, &Device::flex());
        let logits = values(model.forward(input).narrow(1, len - 1, 1));
        let best = (0..VOCAB).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        text.push(best.unwrap() as i32);
    }
    text[prompt.len()..]
        .iter()
        .map(|token| *token as u32)
        .collect()
}

#[test]
fn greedy_generation_is_that_of_full_forward_passes() {
    let model = model();
    let prompts = prompts(&[70, 1, 23, 8]);
    let expected: Vec<_> = prompts
        .iter()
        .map(|prompt| greedy(&model, prompt, 40))
        .collect();
    for chunk in [8192, 100, 17, 16, 7, 1] {
        for evict in [true, false] {
            let config = GenerationConfig::new(40)
                .with_prefill_chunk(chunk)
                .with_evict(evict);
            let generation = model.generate(&prompts, &config, go_on);
            assert_eq!(texts(&generation), expected, "chunk {chunk}");
            let mut sequences = generation.sequences.iter();
            assert!(sequences.all(|sequence| sequence.finish == FinishReason::Length));
        }
    }
    // Alone, as among others.
    let alone = model.generate(&prompts[2..3], &GenerationConfig::new(40), go_on);
    assert_eq!(texts(&alone)[0], expected[2]);
}

/// The weights of a model are drawn when they are first asked for: those that generate are those that it has.
#[test]
fn a_fresh_model_generates_with_its_own_weights() {
    let schedule = LayerSchedule::new(PatternConfig::local_stride(1, 3, 8, 4));
    let config = HybridTransformerConfig::new(VOCAB, 32, 2, 4, schedule).with_init_std(0.3);
    let model = config.init(&Device::flex());
    let prompt = prompts(&[9]);
    let generation = model.generate(&prompt, &GenerationConfig::new(20), go_on);
    assert_eq!(texts(&generation)[0], greedy(&model, &prompt[0], 20));
}

#[test]
fn tokens_come_one_by_one() {
    let model = model();
    let prompts = prompts(&[30, 5]);
    let config = GenerationConfig::new(6).with_prefill_chunk(20);
    let mut streamed = vec![vec![], vec![]];
    let generation = model.generate(&prompts, &config, |token| {
        assert_eq!(token.index, streamed[token.prompt].len());
        streamed[token.prompt].push(token.token);
        ControlFlow::Continue(())
    });
    assert_eq!(streamed, texts(&generation));
    assert_eq!(streamed.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6]);
}

#[test]
fn the_caller_ends_a_sequence() {
    let model = model();
    let prompts = prompts(&[30, 5]);
    let whole = texts(&model.generate(&prompts, &GenerationConfig::new(10), go_on));
    let generation = model.generate(&prompts, &GenerationConfig::new(10), |token| {
        match (token.prompt, token.index) {
            (0, 3) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert_eq!(generation.sequences[0].tokens, whole[0][..4]);
    assert_eq!(generation.sequences[0].finish, FinishReason::Stopped);
    assert_eq!(generation.sequences[1].tokens, whole[1]);
    assert_eq!(generation.sequences[1].finish, FinishReason::Length);
}

#[test]
fn stop_tokens_end_a_sequence_and_are_left_out() {
    let model = model();
    let prompts = prompts(&[30, 5]);
    let whole = texts(&model.generate(&prompts, &GenerationConfig::new(40), go_on));
    // A token that the first text has somewhere after its first ones.
    let (stop, at) = (whole[0].iter().enumerate().skip(3))
        .find_map(|(at, token)| (!whole[0][..at].contains(token)).then_some((*token, at)))
        .unwrap();
    let config = GenerationConfig::new(40).with_stop_tokens(vec![stop]);
    let generation = model.generate(&prompts, &config, |token| {
        assert_ne!(token.token, stop);
        ControlFlow::Continue(())
    });
    assert_eq!(generation.sequences[0].tokens, whole[0][..at]);
    assert_eq!(
        generation.sequences[0].finish,
        FinishReason::StopToken(stop)
    );
    let other = whole[1].iter().position(|token| *token == stop);
    assert_eq!(
        generation.sequences[1].tokens,
        whole[1][..other.unwrap_or(40)]
    );
}

#[test]
fn draws_follow_from_the_seed() {
    let model = model();
    let prompts = prompts(&[30, 5, 5]);
    let run = |seed: u64| {
        let config = GenerationConfig::new(30)
            .with_temperature(1.5)
            .with_seed(seed);
        texts(&model.generate(&prompts, &config, go_on))
    };
    let first = run(1);
    assert_eq!(run(1), first);
    assert_ne!(run(2), first);
    // A single candidate is no choice: the seed does not matter.
    for config in [
        GenerationConfig::new(30)
            .with_temperature(1.5)
            .with_top_k(Some(1)),
        GenerationConfig::new(30)
            .with_temperature(1.5)
            .with_top_p(Some(1e-9)),
        GenerationConfig::new(30).with_temperature(1e-9),
    ] {
        let drawn = texts(&model.generate(&prompts, &config.with_seed(7), go_on));
        assert_eq!(
            drawn,
            texts(&model.generate(&prompts, &GenerationConfig::new(30), go_on))
        );
    }
    // The same prompt twice is drawn for twice.
    let twice = vec![prompts[0].clone(); 2];
    let config = GenerationConfig::new(30).with_temperature(1.5);
    let twice = texts(&model.generate(&twice, &config, go_on));
    assert_ne!(twice[0], twice[1]);
}

#[test]
fn the_cache_is_what_is_said_of_it() {
    let model = model();
    let prompts = prompts(&[100]);
    let generation = model.generate(&prompts, &GenerationConfig::new(50), go_on);
    let mut generator = Generator::new(&model, &prompts, &GenerationConfig::new(50)).unwrap();
    let (mut largest, mut steps) = (0, 0);
    while !generator.is_done() {
        let before = generator.cache().memory_bytes();
        largest = largest.max(before);
        generator.step().unwrap();
        steps += 1;
        let cache = generator.cache();
        if !generator.is_done() {
            assert_eq!(cache.memory_bytes(), cache.predicted_bytes(99 + steps));
        }
    }
    assert_eq!((steps, generator.cache().memory_bytes()), (50, 0));
    let cache = generator.cache();
    assert_eq!(
        generation.cache.bytes,
        largest.max(cache.predicted_bytes(149))
    );
    assert!(generation.cache.bytes < generation.cache.full_bytes);
    assert_eq!(generation.cache.full_bytes, cache.full_bytes(149));
    // Nothing more to do.
    assert_eq!(generator.step(), Ok(vec![]));
    assert_eq!(generator.finish().sequences, generation.sequences);
}

/// A window is full after a few tokens: what it is compared with goes on to the end, and ends with its sequence.
#[test]
fn a_full_cache_is_counted_where_it_is_largest() {
    let window = Rule::SlidingWindow {
        left: 2,
        right: None,
    };
    let schedule = LayerSchedule::new(PatternConfig::new(window, 8, 2));
    let config = HybridTransformerConfig::new(VOCAB, 16, 1, 2, schedule);
    let model = config.init(&Device::flex());
    let config = GenerationConfig::new(200);
    let cache = model.kv_cache(&KvCacheConfig::new(259));
    let of = |config: &GenerationConfig| {
        let generation = model.generate(&prompts(&[5, 60]), config, |token| {
            match (token.prompt, token.index) {
                (1, 19) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        generation.cache
    };
    let used = of(&config);
    // The longer text ends with 79 tokens read, when the other one has 24.
    let together = cache.full_bytes(79) + cache.full_bytes(24);
    let alone = cache.full_bytes(204);
    assert_eq!(used.full_bytes, together.max(alone));
    assert!(
        alone > together && used.bytes * 4 < used.full_bytes,
        "{used:?}"
    );
    // What keeps everything is its own full cache.
    let kept = of(&config.with_evict(false));
    assert_eq!(
        (kept.bytes, kept.full_bytes),
        (used.full_bytes, used.full_bytes)
    );
}

#[test]
fn nothing_is_generated_of_nothing() {
    let model = model();
    let none: [Vec<u32>; 0] = [];
    let generation = model.generate(&none, &GenerationConfig::new(10), go_on);
    assert_eq!(generation, Generation::default());
    let generation = model.generate(&prompts(&[4]), &GenerationConfig::new(0), go_on);
    assert!(generation.sequences[0].tokens.is_empty());
    assert_eq!(generation.sequences[0].finish, FinishReason::Length);
}
