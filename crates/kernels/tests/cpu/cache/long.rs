//! Lists of more pages than there are splits, pages of more keys than a chunk, and more queries than a tile.

use rand::SeedableRng;
use rand::rngs::StdRng;
use s2_attention_kernels::cpu::{Real, Stored};
use s2_attention_pattern::PatternConfig;

use super::state::State;
use crate::support::cache::Model;
use crate::support::compare::{F32, F64, Tolerance};

fn holds<F: Real + Stored<F>>(
    config: &PatternConfig,
    lengths: &[(usize, usize)],
    tolerance: Tolerance,
) {
    let rng = &mut StdRng::seed_from_u64(9);
    let model = Model::new(&config.build().unwrap(), 16, 24);
    let state = State::<F>::new(&model, lengths, rng);
    (state.decode().hold(&state.expected(), tolerance))
        .unwrap_or_else(|miss| panic!("{config:?} at {lengths:?}: {miss}"));
}

#[test]
fn long_sequences() {
    let config = PatternConfig::local_stride(3, 5, 16, 4)
        .with_num_kv_heads(2)
        .with_dense_heads(1);
    for lengths in [
        &[(9000, 1)][..],
        &[(5000, 16)],
        &[(3001, 2), (17, 16), (4100, 1)],
    ] {
        holds::<f32>(&config, lengths, F32);
        holds::<f64>(&config, lengths, F64);
    }
}

#[test]
fn blocks_longer_than_a_chunk() {
    let config = PatternConfig::local_stride(2, 3, 500, 3);
    for lengths in [&[(2600, 1)][..], &[(495, 16)], &[(4995, 16), (300, 7)]] {
        holds::<f32>(&config, lengths, F32);
        holds::<f64>(&config, lengths, F64);
    }
}

#[test]
fn many_query_heads_of_a_key_value_head() {
    for group in [1, 3, 8, 32] {
        let config = PatternConfig::local_stride(2, 7, 8, 2 * group).with_num_kv_heads(2);
        for new in [1, 2, 7, 16] {
            holds::<f32>(&config, &[(300, new)], F32);
            holds::<f64>(&config, &[(300, new), (0, new)], F64);
        }
    }
}
