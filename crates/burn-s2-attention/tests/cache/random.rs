//! Random patterns of every kind, shapes, batches and chunks.

use burn_s2_attention::cache::{CacheLayer, KvCacheConfig};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::attend::batch_distance;
use crate::support::random;

const MAX_TOKENS: usize = 130;

/// A layer with a causal pattern: where the rule drawn is none, without what lies after the query.
fn layer(random: &mut StdRng) -> CacheLayer {
    let block = match random.random_range(0..4) {
        0 => 1 << random.random_range(0..8),
        _ => random.random_range(1..=24),
    };
    let mut config = random::pattern(random, block, MAX_TOKENS.div_ceil(block));
    let causal = config.build().is_ok_and(|pattern| pattern.is_causal());
    if !causal {
        config.rule = config.rule.causal_clamp();
    }
    let pattern = config
        .build()
        .unwrap_or_else(|error| panic!("{error}: {config:?}"));
    let [head_dim, value_dim] = [(); 2].map(|()| random.random_range(1..=48));
    let factor = [-1.0, 0.3, 1.0][random.random_range(0..3)];
    CacheLayer {
        pattern,
        head_dim,
        value_dim,
        scale: (factor < 1.0).then(|| factor / (head_dim as f64).sqrt()),
    }
}

#[test]
fn a_thousand_caches_give_the_one_shot_results() {
    for seed in 0..1000 {
        let mut random = StdRng::seed_from_u64(seed);
        let layer = layer(&mut random);
        let config = KvCacheConfig::new(MAX_TOKENS).with_evict(random.random_bool(0.5));
        let distance = batch_distance(&layer, &config, &mut random);
        assert!(distance < 2e-5, "seed {seed}: {distance:e}\n{layer:#?}");
    }
}
