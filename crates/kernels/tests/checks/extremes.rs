//! Scores beyond f32's digits.

use s2_attention_kernels::{AttentionProblem, AttentionShape};
use s2_attention_pattern::{PatternConfig, Rule};

use super::edges::call;
use super::engine::Engine;
use super::plain::plain;
use super::storage::Storage;
use super::support::{Tensors, oracle};
use super::worst::rounded;
use super::{Effort, ensure, in_types};

const SHAPE: AttentionShape = AttentionShape {
    batch: 1,
    num_heads: 1,
    num_kv_heads: 1,
    seq_q: 150,
    seq_kv: 150,
    head_dim: 16,
    value_dim: 16,
};

/// All of them, in every type.
pub fn check(engine: &Engine, effort: &Effort) -> Result<String, String> {
    in_types(engine, effort, &Storage::ALL, of_type)
}

fn of_type(engine: &Engine, _: &Effort) -> Result<String, String> {
    let held = [
        bounded_gradients(engine)?,
        large_logits(engine)?,
        climbing_scores(engine)?,
    ];
    Ok(held.join("; "))
}

/// Scores of a hundred million: lse keeps no digit after the point, and `exp(score - lse)` must not run away.
fn bounded_gradients(engine: &Engine) -> Result<String, String> {
    let rule = Rule::Dense { causal: true };
    let (problem, mut tensors) = call(SHAPE, &PatternConfig::new(rule, 16, 1), None, None, 1e4)?;
    tensors.v.iter_mut().for_each(|v| *v *= 1e-4);
    let tensors = rounded(&tensors, engine.storage);
    let results = engine.run(&problem, &tensors)?;
    let largest = |values: &[f32]| {
        let sizes = values.iter().map(|x| f64::from(x.abs()));
        sizes.fold(0.0, f64::max)
    };
    // P is at most 1, so dS = P (dP - D) is at most the size of dP and D, and no gradient is larger than this.
    let d_scores = 2.0 * SHAPE.value_dim as f64 * largest(&tensors.d_out) * largest(&tensors.v)
        + tensors.d_lse.as_deref().map_or(0.0, largest);
    let of_scores = SHAPE.seq_q as f64 * d_scores * largest(&tensors.q).max(largest(&tensors.k));
    let of_values = SHAPE.seq_q as f64 * largest(&tensors.d_out);
    // Out is a convex combination of values.
    let bounds = [
        ("out", &results.out, largest(&tensors.v)),
        ("dq", &results.dq, of_scores),
        ("dk", &results.dk, of_scores),
        ("dv", &results.dv, of_values),
    ];
    for (name, values, bound) in bounds {
        // Rounded up to the type, where it has such numbers.
        let bound = f64::from(engine.storage.round((bound * 1.01) as f32));
        ensure(values.iter().all(|x| x.abs() <= bound), || {
            format!("{name} of scores of 1e8 above {bound:e}")
        })?;
    }
    Ok("scores of 1e8 stay in bounds".to_owned())
}

/// Scores of a standard deviation of 900. The softmax is one-hot but for near ties, where f32 scores, themselves off by
/// up to 1e-3, decide: so the engine is held to the plain computation.
fn large_logits(engine: &Engine) -> Result<String, String> {
    let config = PatternConfig::local_stride(2, 3, 16, 1);
    let (problem, tensors) = call(SHAPE, &config, None, None, 30.0)?;
    let tensors = rounded(&tensors, engine.storage);
    as_exact_as_plain(engine, "scores of 900", &problem, &tensors)?;
    Ok("scores of 900 as exact as the plain computation".to_owned())
}

/// Scores that climb with the keys' positions, by 2^6 to 2^40 from a block to the next: an online softmax may let its maximum
/// lag behind, but neither so far that weights of the type overflow nor that those before vanish too early.
fn climbing_scores(engine: &Engine) -> Result<String, String> {
    let shape = AttentionShape {
        seq_q: 600,
        seq_kv: 600,
        ..SHAPE
    };
    let config = PatternConfig::new(Rule::Dense { causal: true }, 64, 1);
    for powers in [6.0_f32, 11.0, 14.0, 18.0, 40.0] {
        let (problem, mut tensors) = call(shape, &config, None, None, 1.0)?;
        let scale = (shape.head_dim as f32).sqrt();
        for token in 0..shape.seq_kv {
            let first = token * shape.head_dim;
            tensors.q[first] = 4.0;
            tensors.k[first] = token as f32 / 64.0 * powers * core::f32::consts::LN_2 * scale / 4.0;
        }
        let tensors = rounded(&tensors, engine.storage);
        let name = format!("scores that climb by 2^{powers} a block");
        as_exact_as_plain(engine, &name, &problem, &tensors)?;
    }
    Ok("scores that climb by up to 2^40 a block as well".to_owned())
}

/// Out and lse, beside the plain computation of the type.
fn as_exact_as_plain(
    engine: &Engine,
    of: &str,
    problem: &AttentionProblem,
    tensors: &Tensors,
) -> Result<(), String> {
    let results = engine.run(problem, tensors)?;
    let expected = oracle(problem, tensors);
    let plain = plain(problem, tensors, engine.storage);
    for (name, values) in results.named() {
        ensure(values.iter().all(|x| x.is_finite()), || {
            format!("{name} of {of} is not finite")
        })?;
    }
    let pairs = [
        ("out", &results.out, &plain.out, &expected.out),
        ("lse", &results.lse, &plain.lse, &expected.lse),
    ];
    for (name, values, plain, expected) in pairs {
        let [error, plain] = [values, plain].map(|values| distance(values, expected));
        ensure(error <= 2.0 * plain, || {
            format!("{name} of {of} is off by {error:e}, the plain computation by {plain:e}")
        })?;
    }
    Ok(())
}

/// The Frobenius norm of the difference.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2));
    squares.sum::<f64>().sqrt()
}
