//! How results are held to the oracle in each type, and the worst that was seen.

use std::fmt;

use s2_attention_kernels::AttentionProblem;

use super::engine::Engine;
use super::ensure;
use super::plain::plains;
use super::storage::Storage;
use super::support::compare::{self, F32};
use super::support::{Results, Tensors, oracle};

/// What a call must give in a type.
pub struct Expected {
    /// The inputs, rounded to the type.
    pub tensors: Tensors,
    /// The oracle's results on them.
    pub results: Results,
    /// What the plain computation in the type gives, see [`plains`]; `None` for f32, which has bars of its own.
    pub plains: Option<[Results; 3]>,
}

impl Expected {
    pub fn new(problem: &AttentionProblem, tensors: &Tensors, storage: Storage) -> Self {
        let tensors = rounded(tensors, storage);
        let two_bytes = storage != Storage::F32;
        Self {
            results: oracle(problem, &tensors),
            plains: two_bytes.then(|| plains(problem, &tensors, storage)),
            tensors,
        }
    }
}

/// The inputs of the type: rounded before anything is computed from them.
pub fn rounded(tensors: &Tensors, storage: Storage) -> Tensors {
    let round = |values: &[f32]| values.iter().map(|x| storage.round(*x)).collect();
    Tensors {
        q: round(&tensors.q),
        k: round(&tensors.k),
        v: round(&tensors.v),
        d_out: round(&tensors.d_out),
        d_lse: tensors.d_lse.clone(),
    }
}

/// The worst of many calls of one type.
#[derive(Debug, Clone, Copy, Default)]
pub struct Worst {
    f32: compare::Worst,
    halves: Option<Shares>,
}

impl Worst {
    /// f32 within its bars; two-byte types at most 1.5 times plain's largest error and 1.2 times its Frobenius error, and
    /// lse within 1e-4. Where plain is exact, f32's bars.
    ///
    /// # Errors
    /// The first tensor that misses its bar.
    pub fn hold(&mut self, results: &Results, expected: &Expected) -> Result<(), String> {
        match &expected.plains {
            None => self.f32.hold(results, &expected.results, F32),
            Some(plains) => {
                let shares = self.halves.get_or_insert_default();
                shares.hold(results, plains, &expected.results)
            }
        }
    }

    /// Holds several calls as one: a few rows alone may round to the other side than plain's.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub fn hold_together(&mut self, calls: &[(Results, Expected)]) -> Result<(), String> {
        let plains = [0, 1, 2].map(|at| {
            let of_calls = calls.iter().filter_map(|(_, of)| of.plains.as_ref());
            Results::together(of_calls.map(|plains| &plains[at]))
        });
        let results = Results::together(calls.iter().map(|(results, _)| results));
        let expected = Results::together(calls.iter().map(|(_, expected)| &expected.results));
        match calls.first() {
            Some((_, of)) if of.plains.is_some() => {
                let shares = self.halves.get_or_insert_default();
                shares.hold(&results, &plains, &expected)
            }
            _ => self.f32.hold(&results, &expected, F32),
        }
    }

    /// Runs a call and holds it to the oracle.
    ///
    /// # Errors
    /// Launches that fail, and the first tensor that misses its bar.
    pub fn run(
        &mut self,
        engine: &Engine,
        problem: &AttentionProblem,
        tensors: &Tensors,
    ) -> Result<Results, String> {
        let expected = Expected::new(problem, tensors, engine.storage);
        let results = engine.run(problem, &expected.tensors)?;
        self.hold(&results, &expected)?;
        Ok(results)
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.halves {
            None => self.f32.fmt(f),
            Some(shares) => shares.fmt(f),
        }
    }
}

/// The largest errors beside plain's, of many calls: largest element and Frobenius.
#[derive(Debug, Clone, Copy, Default)]
struct Shares([f64; 2]);

impl Shares {
    fn hold(
        &mut self,
        results: &Results,
        plains: &[Results; 3],
        expected: &Results,
    ) -> Result<(), String> {
        let tensors = results.named().into_iter().zip(expected.named());
        for (at, ((name, results), (_, expected))) in tensors.enumerate() {
            ensure(results.len() == expected.len(), || {
                format!(
                    "{name} has {} elements instead of {}",
                    results.len(),
                    expected.len()
                )
            })?;
            if name == "lse" {
                compare::tensor(name, results, expected, 1e-4)?;
                continue;
            }
            let of_plains = plains
                .each_ref()
                .map(|plain| errors(plain.named()[at].1, expected));
            let plain = [0, 1].map(|kind| {
                of_plains
                    .map(|errors| errors[kind])
                    .into_iter()
                    .fold(0.0, f64::max)
            });
            let errors = errors(results, expected);
            if of_plains[0][0] == 0.0 {
                // A softmax of one key has no gradient, which plain hits: what is left are sums of f32 in another order.
                compare::tensor(name, results, expected, F32.of(name))?;
                continue;
            }
            for (kind_at, (kind, factor)) in
                [("largest", 1.5), ("Frobenius", 1.2)].iter().enumerate()
            {
                let (error, bar) = (errors[kind_at], factor * plain[kind_at]);
                // Not `error > bar`, which NaN passes.
                let held = error <= bar;
                ensure(held, || {
                    format!("{name}: {kind} error {error:e} above {bar:e}")
                })?;
                self.0[kind_at] = self.0[kind_at].max(error / plain[kind_at]);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [largest, frobenius] = self.0;
        write!(
            f,
            "at most {largest:.2}x plain's largest error and {frobenius:.2}x its Frobenius error"
        )
    }
}

/// Largest and Frobenius error.
fn errors(actual: &[f64], expected: &[f64]) -> [f64; 2] {
    let differences = || actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    // `max` would pass over a NaN.
    let largest = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    let squares: f64 = differences()
        .map(|difference| difference * difference)
        .sum();
    [differences().fold(0.0, largest), squares.sqrt()]
}
