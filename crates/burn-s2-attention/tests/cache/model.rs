//! The model on a cache: what it computes of whole sequences.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_s2_attention::cache::{Append, KvCache, KvCacheConfig, SequenceId};
use burn_s2_attention::model::{HybridTransformer, HybridTransformerConfig};
use burn_s2_attention::{LayerSchedule, PatternConfig};

use crate::common::host::values;
use crate::common::models::{VOCAB, config, model, variants};
use crate::common::panics::panic_text;
use crate::common::products::product_error;
use crate::common::tensors::{assert_close, distance, tokens};

const SEQ: usize = 120;

pub fn cache(model: &HybridTransformer) -> KvCache {
    model.kv_cache(&KvCacheConfig::new(SEQ))
}

/// Texts of one row each.
pub fn texts(count: usize) -> Vec<Tensor<2, Int>> {
    let all = tokens(count, SEQ, VOCAB, &crate::device());
    (0..count)
        .map(|text| all.clone().narrow(0, text, 1))
        .collect()
}

/// One step: logits of the new tokens of each sequence.
fn step(
    model: &HybridTransformer,
    cache: &mut KvCache,
    parts: Vec<(SequenceId, Tensor<2, Int>)>,
) -> Vec<Tensor<3>> {
    let append = |(sequence, tokens): &(SequenceId, Tensor<2, Int>)| Append {
        sequence: *sequence,
        tokens: tokens.dims()[1],
    };
    let appends: Vec<Append> = parts.iter().map(append).collect();
    let begun = cache.begin(&appends);
    let rows = Tensor::cat(parts.into_iter().map(|(_, tokens)| tokens).collect(), 1);
    let logits = model.forward_cached(rows, cache);
    cache.commit();
    assert_eq!(begun.items().len(), appends.len());
    let items = begun.items().iter();
    items
        .map(|item| logits.clone().narrow(1, item.q_row, item.q_len))
        .collect()
}

/// Tokens of the steps of one sequence that comes in chunks, the last of them as often as it takes.
fn lengths(chunks: &[usize]) -> Vec<usize> {
    let (mut lengths, mut left) = (vec![], SEQ);
    let last = chunks.last().unwrap();
    for len in chunks.iter().chain(std::iter::repeat(last)) {
        let len = left.min(*len);
        if len == 0 {
            break;
        }
        lengths.push(len);
        left -= len;
    }
    lengths
}

/// Logits of one sequence that comes in [these](lengths) steps.
pub fn chunked(
    model: &HybridTransformer,
    cache: &mut KvCache,
    text: &Tensor<2, Int>,
    chunks: &[usize],
) -> Tensor<3> {
    let sequence = cache.add();
    let (mut logits, mut start) = (vec![], 0);
    for len in lengths(chunks) {
        let part = text.clone().narrow(1, start, len);
        logits.push(step(model, cache, vec![(sequence, part)]).remove(0));
        start += len;
    }
    Tensor::cat(logits, 1)
}

/// What logits may differ by: 2e-5, or where Burn's products lose more digits than f32 has ten times what one of them loses.
fn tolerance() -> f64 {
    (10.0 * product_error(&crate::device())).max(EXACT)
}

/// What logits may differ by where all products keep the digits of f32.
const EXACT: f64 = 2e-5;
/// Most rows that have kernels of their own on GPUs, which keep them.
const FEW: usize = 16;

#[test]
fn any_split_of_a_prompt_gives_the_one_shot_logits() {
    for (variant, config) in variants().into_iter().enumerate() {
        let model = model(config, &crate::device());
        let text = texts(1).remove(0);
        let one_shot = model.forward(text.clone());
        let cpu = Device::flex();
        let on_cpu = Tensor::from_data(text.clone().into_data(), &cpu);
        let exact = model.clone().fork(&cpu).forward(on_cpu);
        let exact = exact.to_device(&crate::device());
        let mut cache = cache(&model);
        let splits = [
            &[SEQ][..],
            &[1],
            &[3, 50, 40, 7],
            &[16],
            &[17],
            &[60, 1],
            &[24, 8],
        ];
        // How a prompt is split has nothing to do with norms and networks.
        let all = variant == 0 || crate::every_case();
        let count = if all { splits.len() } else { 3 };
        for chunks in &splits[..count] {
            let logits = chunked(&model, &mut cache, &text, chunks);
            // Each step is held to one pass by products like its own: Burn's may have fewer digits than f32, those of few rows have all.
            let (mut expected, mut start) = (vec![], 0);
            for len in lengths(chunks) {
                let whole = if len > FEW { &one_shot } else { &exact };
                expected.push(whole.clone().narrow(1, start, len));
                start += len;
            }
            let few = chunks.iter().all(|len| *len <= FEW);
            let tolerance = if few { EXACT } else { tolerance() };
            let distance = distance(logits, Tensor::cat(expected, 1));
            assert!(
                distance < tolerance,
                "{chunks:?}: {distance:e} of {tolerance:e}"
            );
        }
    }
}

/// One sequence decodes while another is still read.
#[test]
fn mixed_batches_give_each_its_own_logits() {
    let model = model(config(), &crate::device());
    let texts = texts(3);
    let tolerance = tolerance();
    let expected: Vec<_> = texts
        .iter()
        .map(|text| model.forward(text.clone()))
        .collect();
    let mut cache = cache(&model);
    let sequences = [(); 3].map(|()| cache.add());
    let mut starts = [0; 3];
    for lens in [
        [40, 1, 0],
        [1, 30, 20],
        [17, 1, 16],
        [1, 1, 1],
        [2, 0, 50],
        [0, 60, 1],
    ] {
        let (mut parts, mut of) = (vec![], vec![]);
        for text in (0..3).filter(|text| lens[*text] > 0) {
            let part = texts[text].clone().narrow(1, starts[text], lens[text]);
            parts.push((sequences[text], part));
            of.push(text);
        }
        for (text, logits) in of.into_iter().zip(step(&model, &mut cache, parts)) {
            let expected = expected[text].clone().narrow(1, starts[text], lens[text]);
            assert_close(logits, expected, tolerance);
            starts[text] += lens[text];
        }
    }
}

#[test]
fn forks_continue_as_the_whole_texts_would() {
    let model = model(config(), &crate::device());
    let [first, second] = <[_; 2]>::try_from(texts(2)).unwrap();
    let tolerance = tolerance();
    let mut cache = cache(&model);
    let a = cache.add();
    step(
        &model,
        &mut cache,
        vec![(a, first.clone().narrow(1, 0, 50))],
    );
    let b = cache.fork(a);
    let second = Tensor::cat(
        vec![first.clone().narrow(1, 0, 50), second.narrow(1, 50, 70)],
        1,
    );
    let [of_a, of_b] = [&first, &second].map(|text| model.forward(text.clone()));
    assert!(distance(of_a.clone(), of_b.clone()) > 0.1);
    for start in 50..SEQ {
        let parts = [(a, &first), (b, &second)];
        let parts = parts.map(|(id, text)| (id, text.clone().narrow(1, start, 1)));
        let logits = step(&model, &mut cache, parts.to_vec());
        for (logits, expected) in logits.into_iter().zip([&of_a, &of_b]) {
            assert_close(logits, expected.clone().narrow(1, start, 1), tolerance);
        }
    }
}

#[test]
fn eviction_changes_no_bit() {
    let model = model(config(), &crate::device());
    let text = texts(1).remove(0);
    let [evicted, kept] = [true, false].map(|evict| {
        let config = KvCacheConfig::new(SEQ).with_evict(evict);
        let mut cache = model.kv_cache(&config);
        let logits = chunked(&model, &mut cache, &text, &[50, 20, 1]);
        (values(logits), cache.memory_bytes())
    });
    assert_eq!(evicted.0, kept.0);
    assert!(evicted.1 < kept.1);
}

/// A model that trains can be asked as well; nothing is tracked beyond its own operations.
#[test]
fn a_model_with_gradients_computes_the_same() {
    let device = crate::device().autodiff();
    let model = model(config(), &device);
    let text = Tensor::from_data(texts(1).remove(0).into_data(), &device);
    let expected = model.valid().forward(text.clone().inner());
    let mut cache = cache(&model);
    assert!(!cache.device().is_autodiff());
    let logits = chunked(&model, &mut cache, &text, &[50, 20, 1]);
    assert_close(logits.inner(), expected, tolerance());
}

/// A cache is for the layers that it was made for, and for those of models that are made alike. Nothing runs on another.
#[test]
fn a_cache_of_another_model_is_refused() {
    let device = crate::device();
    let cached = model(config(), &device);
    let mut cache = cache(&cached);
    let sequence = cache.add();
    cache.begin(&[Append {
        sequence,
        tokens: 3,
    }]);
    let text = || texts(1).remove(0).narrow(1, 0, 3);
    let sparse = PatternConfig::local_stride(1, 4, 8, 4).with_num_kv_heads(2);
    let two = HybridTransformerConfig {
        num_layers: 2,
        ..config()
    };
    let others = [
        (two, "the model has 2 layers, but the cache was made for 3"),
        (
            HybridTransformerConfig {
                attention: LayerSchedule::new(sparse),
                ..config()
            },
            "layer 0 attends with pattern = local",
        ),
        (
            config().with_head_dim(Some(16)),
            "head_dim = 16, but the cache was made for 8",
        ),
        (
            config().with_attention_scale(Some(0.7)),
            "scale = 0.7, but the cache was made for 0.3535",
        ),
    ];
    for (other, words) in others {
        let other = model(other, &device);
        let error = other.check_cache(&cache).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        let panics = panic_text(|| other.forward_cached(text(), &mut cache));
        assert_eq!(panics, error);
        assert!(cache.try_commit().is_err(), "a layer has attended");
    }
    // A layer in the place of another.
    let x = Tensor::zeros([1, 3, 32], &device);
    let panics = panic_text(|| cached.layers[1].attention.forward_cached(x, &mut cache, 0));
    assert!(panics.contains("layer 0 attends with pattern"), "{panics}");

    let alike = model(config(), &device);
    assert_eq!(alike.check_cache(&cache), Ok(()));
    alike.forward_cached(text(), &mut cache);
    cache.commit();
}

/// A step without a token: rows that nobody owns have positions all the same.
#[test]
fn the_first_step_may_be_of_no_tokens() {
    let model = model(config(), &crate::device());
    let mut cache = cache(&model);
    let sequence = cache.add();
    cache.begin(&[Append {
        sequence,
        tokens: 0,
    }]);
    let text = texts(1).remove(0);
    model.forward_cached(text.clone().narrow(1, 0, 1), &mut cache);
    cache.commit();
    let logits = step(&model, &mut cache, vec![(sequence, text.clone())]).remove(0);
    assert_close(logits, model.forward(text), tolerance());
}

/// Layers of one pattern share their table; each has pages of its own.
#[test]
fn a_cache_grows_with_the_layers() {
    let bytes = |layers: usize| {
        let schedule = LayerSchedule::new(PatternConfig::local_stride(1, 3, 8, 4));
        let config = HybridTransformerConfig::new(VOCAB, 32, layers, 4, schedule);
        let cache = config
            .init(&crate::device())
            .kv_cache(&KvCacheConfig::new(SEQ));
        (cache.num_layers(), cache.full_bytes(SEQ))
    };
    let [(_, one), (_, two), (layers, four)] = [1, 2, 4].map(bytes);
    // 15 blocks of 8 tokens, 4 heads of 8 elements, keys and values of 4 bytes.
    assert_eq!(two - one, 15 * 8 * 4 * 8 * 2 * 4);
    assert_eq!((layers, four - two), (4, 2 * (two - one)));
}
