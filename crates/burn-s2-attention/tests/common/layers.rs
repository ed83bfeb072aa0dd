//! Layers of a cache.

use burn_s2_attention::PatternConfig;
use burn_s2_attention::cache::CacheLayer;

pub fn layer(pattern: PatternConfig, [head_dim, value_dim]: [usize; 2]) -> CacheLayer {
    CacheLayer {
        pattern: pattern.build().unwrap(),
        head_dim,
        value_dim,
        scale: None,
    }
}
