//! Writing on a GPU: what the CPU writes.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use burn_s2_attention::PatternConfig;
use burn_s2_attention::cache::{Append, KvCache, KvCacheConfig};
use burn_s2_attention::model::GenerationConfig;

use crate::common::host::values;
use crate::common::layers::layer;
use crate::common::models::{config, model};

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
