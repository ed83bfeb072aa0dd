//! Which tokens are drawn, and how often.

use burn_s2_attention::model::{GenerationConfig, GenerationError, Sampler};

/// Probabilities 0.5, 0.05, 0.3 and 0.15.
fn logits() -> [f32; 4] {
    [0.5_f32, 0.05, 0.3, 0.15].map(|probability| probability.ln() + 3.0)
}

fn config() -> GenerationConfig {
    GenerationConfig::new(1).with_temperature(1.0)
}

fn candidates(config: &GenerationConfig, logits: &[f32]) -> Vec<(u32, f64)> {
    Sampler::new(config, 0).unwrap().candidates(logits).unwrap()
}

#[track_caller]
fn assert_candidates(config: GenerationConfig, expected: &[(u32, f64)]) {
    let found = candidates(&config, &logits());
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((token, probability), (expected_token, expected)) in found.iter().zip(expected) {
        assert_eq!(token, expected_token, "{found:?}");
        assert!((probability - expected).abs() < 1e-6, "{found:?}");
    }
}

#[test]
fn all_tokens_have_their_probability() {
    assert_candidates(config(), &[(0, 0.5), (1, 0.05), (2, 0.3), (3, 0.15)]);
    assert_candidates(
        config().with_top_p(Some(1.0)),
        &[(0, 0.5), (1, 0.05), (2, 0.3), (3, 0.15)],
    );
}

/// Far below the likeliest there is nothing left of a probability.
#[test]
fn candidates_can_be_drawn() {
    let found = candidates(&config(), &[0.0, -800.0, -1.0, f32::NEG_INFINITY]);
    let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [0, 2]);
}

#[test]
fn top_k_keeps_the_likeliest() {
    assert_candidates(config().with_top_k(Some(1)), &[(0, 1.0)]);
    assert_candidates(config().with_top_k(Some(2)), &[(0, 0.625), (2, 0.375)]);
    let all = [(0, 0.5), (2, 0.3), (3, 0.15), (1, 0.05)];
    assert_candidates(config().with_top_k(Some(4)), &all);
    assert_candidates(config().with_top_k(Some(100)), &all);
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it() {
    for (top_p, kept) in [
        (0.01, 1),
        (0.49, 1),
        (0.51, 2),
        (0.79, 2),
        (0.81, 3),
        (0.94, 3),
        (0.96, 4),
    ] {
        let found = candidates(&config().with_top_p(Some(top_p)), &logits());
        let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [0, 2, 3, 1][..kept], "top_p {top_p}");
        let sum: f64 = found.iter().map(|(_, probability)| probability).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
    // Of what top_k has left: 0.625 and 0.375.
    let both = config().with_top_k(Some(2));
    assert_candidates(both.clone().with_top_p(Some(0.6)), &[(0, 1.0)]);
    assert_candidates(both.with_top_p(Some(0.65)), &[(0, 0.625), (2, 0.375)]);
}

#[test]
fn temperature_changes_the_odds() {
    // Odds of 0.5 to 0.3, squared and their root.
    let odds = |temperature: f64| {
        let config = config().with_temperature(temperature).with_top_k(Some(2));
        let found = candidates(&config, &logits());
        found[0].1 / found[1].1
    };
    let ratio: f64 = 0.5 / 0.3;
    assert!((odds(0.5) - ratio.powi(2)).abs() < 1e-5);
    assert!((odds(2.0) - ratio.sqrt()).abs() < 1e-5);
    assert_candidates(config().with_temperature(0.0), &[(0, 1.0)]);
    assert_candidates(config().with_temperature(1e-300), &[(0, 1.0)]);
}

#[test]
fn the_first_of_equals_is_taken() {
    let greedy = GenerationConfig::new(1);
    assert_eq!(candidates(&greedy, &[1.0, 2.0, 2.0]), [(1, 1.0)]);
    assert_eq!(candidates(&greedy, &[-0.0, 0.0]), [(0, 1.0)]);
    let found = candidates(&config().with_top_k(Some(2)), &[2.0, 1.0, 2.0, 2.0]);
    assert_eq!(found, [(0, 0.5), (2, 0.5)]);
}

/// A token of minus infinity cannot come; one of plus infinity or NaN means that the model is broken.
#[test]
fn infinity_and_nan() {
    let found = candidates(&config(), &[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.0]);
    assert_eq!(found, [(1, 0.5), (3, 0.5)]);
    let minus = f32::NEG_INFINITY;
    for logits in [
        &[1.0, f32::NAN][..],
        &[f32::NAN, f32::NAN],
        &[f32::INFINITY, 1.0],
        &[minus, minus],
        &[],
    ] {
        for config in [config(), GenerationConfig::new(1)] {
            let mut sampler = Sampler::new(&config, 0).unwrap();
            assert_eq!(sampler.draw(logits), Err(GenerationError::Logits));
        }
    }
}

/// 100,000 draws: each count within five standard deviations of what its probability says.
#[test]
fn draws_are_as_frequent_as_probable() {
    const DRAWS: usize = 100_000;
    for config in [
        config(),
        config().with_top_k(Some(3)),
        config().with_top_p(Some(0.7)),
    ] {
        let mut sampler = Sampler::new(&config, 3).unwrap();
        let mut counts = [0_usize; 4];
        for _ in 0..DRAWS {
            counts[sampler.draw(&logits()).unwrap() as usize] += 1;
        }
        let mut expected = [0.0; 4];
        for (token, probability) in sampler.candidates(&logits()).unwrap() {
            expected[token as usize] = probability;
        }
        for (count, probability) in counts.into_iter().zip(expected) {
            let mean = DRAWS as f64 * probability;
            let deviation = (mean * (1.0 - probability)).sqrt();
            assert!(
                (count as f64 - mean).abs() <= 5.0 * deviation,
                "{counts:?} {expected:?}"
            );
        }
    }
}

#[test]
fn a_seed_repeats_its_draws() {
    let draws = |seed: u64, sequence: u64| -> Vec<u32> {
        let mut sampler = Sampler::new(&config().with_seed(seed), sequence).unwrap();
        (0..100).map(|_| sampler.draw(&logits()).unwrap()).collect()
    };
    assert_eq!(draws(1, 0), draws(1, 0));
    assert_ne!(draws(1, 0), draws(2, 0));
    assert_ne!(draws(1, 0), draws(1, 1));
}
