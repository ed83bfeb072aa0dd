//! Writing on a GPU: what the CPU writes, and steps that are captured.

use std::cell::RefCell;
use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, capture};
use burn_s2_attention::PatternConfig;
use burn_s2_attention::cache::{Append, KvCache, KvCacheConfig};
use burn_s2_attention::model::GenerationConfig;

use super::cache_model::{chunked, texts};
use crate::common::host::values;
use crate::common::layers::layer;
use crate::common::models::{VOCAB, config, model};
use crate::common::tensors::distance;

#[test]
fn a_gpu_writes_what_the_cpu_writes() {
    let model = model(config(), &Device::flex());
    let prompts: Vec<Vec<u32>> = [60, 3, 20]
        .map(|length| (0..length).map(|i| i % 50).collect())
        .into();
    let config = GenerationConfig::new(30).with_prefill_chunk(25);
    let write = |device: &Device| {
        let model = model.clone().fork(device);
        let generation = model.generate(&prompts, &config, |_| ControlFlow::Continue(()));
        (generation.cache, generation.sequences)
    };
    assert_eq!(write(&crate::device()), write(&Device::flex()));
}

/// A step of one token is captured once. Replayed after `begin` has rewritten tables and positions, and the token was written in
/// place, it is the step that would have been run: in a graph where the device has them, by calling the closure again elsewhere.
#[test]
fn a_captured_step_is_every_step() {
    const PROMPT: usize = 40;
    const SEQ: usize = 120;
    let device = crate::device();
    let model = model(config(), &device);
    let text = texts(1).remove(0);
    let ids: Vec<i32> = text
        .clone()
        .into_data()
        .convert::<i32>()
        .try_to_vec()
        .unwrap();
    let reserved = KvCacheConfig::new(SEQ).with_reserve(Some(1));
    let expected = chunked(&model, &mut model.kv_cache(&reserved), &text, &[PROMPT, 1]);

    let cache = RefCell::new(model.kv_cache(&reserved));
    let sequence = cache.borrow_mut().add();
    let begin = |tokens| {
        cache.borrow_mut().begin(&[Append { sequence, tokens }]);
    };
    begin(PROMPT);
    model.forward_cached(text.clone().narrow(1, 0, PROMPT), &mut cache.borrow_mut());
    cache.borrow_mut().commit();

    let token = RefCell::new(text.clone().narrow(1, PROMPT, 1) + 0);
    let next = || {
        let token = token.borrow().clone();
        model.forward_cached(token, &mut cache.borrow_mut())
    };
    begin(1);
    let mut graph = capture(&device, next);
    let mut steps = vec![values(graph.output().clone())];
    cache.borrow_mut().commit();
    for id in &ids[PROMPT + 1..] {
        begin(1);
        let id = TensorData::new(vec![*id], [1, 1]);
        let id = Tensor::<2, Int>::from_data(id, (&device, token.borrow().dtype()));
        token
            .borrow_mut()
            .inplace(|token| token.slice_assign([0..1, 0..1], id));
        // SAFETY: what the step reads and writes is alive: the model, the cache, which is reserved, and the token. Nothing else
        // runs on the device, and the output is read before the next step.
        steps.push(values(unsafe { graph.replay() }.clone()));
        cache.borrow_mut().commit_replayed();
    }
    let steps: Vec<f64> = steps.concat();
    let steps = Tensor::<3>::from_data(TensorData::new(steps, [1, SEQ - PROMPT, VOCAB]), &device);
    let expected = expected.narrow(1, PROMPT, SEQ - PROMPT);
    let distance = distance(steps, expected);
    assert!(
        distance < 2e-5,
        "{distance:e}, hardware: {}",
        graph.is_hardware()
    );
}

/// A step does not copy the pools, though fusion stands between them and the kernels that write them.
#[test]
fn pools_are_written_in_place() {
    const TOKENS: usize = 200_000;
    let device = crate::device();
    let layer = layer(PatternConfig::dense(64, 1), [128, 128]);
    let config = KvCacheConfig::new(TOKENS).with_reserve(Some(1));
    let mut cache = KvCache::new(vec![layer], DType::F32, &device, &config);
    let sequence = cache.add();
    let held = || {
        device.sync().unwrap();
        let usage = device.memory_pool_usage().expect("what is allocated");
        usage.bytes_reserved
    };
    let pool = TOKENS as u64 * 128 * 4;
    let before = held();
    assert!(before >= 2 * pool, "{before} bytes for two pools of {pool}");
    for _ in 0..3 {
        cache.begin(&[Append {
            sequence,
            tokens: 2,
        }]);
        let rows = Tensor::<4>::ones([1, 2, 1, 128], (&device, DType::F32));
        let out = cache.attend(0, rows.clone(), rows.clone(), rows);
        cache.commit();
        assert!(values(out).iter().all(|x| (x - 1.0).abs() < 1e-5));
        // What other tests allocate meanwhile is less than a pool.
        let after = held();
        assert!(
            after < before + pool,
            "{before} bytes, then {after}: pools of {pool}"
        );
    }
}
