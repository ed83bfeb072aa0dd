//! The tolerances of f32 results, and how they are held.

use std::fmt;

use super::Results;

/// Bars on `|actual - expected| / (1 + |expected|)`.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub out: f64,
    pub lse: f64,
    pub gradients: f64,
}

/// f32 against f64, for inputs of a standard deviation of at most 1.5.
pub const F32: Tolerance = Tolerance {
    out: 8e-6,
    lse: 8e-6,
    gradients: 1e-4,
};

/// f64 against f64.
pub const F64: Tolerance = Tolerance {
    out: 1e-12,
    lse: 1e-12,
    gradients: 1e-10,
};

/// f64 against float64 results that are stored as f32.
pub const STORED: Tolerance = Tolerance {
    out: 1e-7,
    lse: 1e-7,
    gradients: 1e-7,
};

impl Tolerance {
    pub fn of(&self, tensor: &str) -> f64 {
        match tensor {
            "out" => self.out,
            "lse" => self.lse,
            _ => self.gradients,
        }
    }
}

/// Holds every tensor of `actual` to `expected`.
///
/// # Errors
/// The first tensor that misses its bar, with its worst element.
pub fn results(actual: &Results, expected: &Results, tolerance: Tolerance) -> Result<(), String> {
    Worst::default().hold(actual, expected, tolerance)
}

/// The worst errors of many calls, by tensor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Worst([f64; 5]);

impl Worst {
    /// As [`results`], and keeps the worst errors.
    ///
    /// # Errors
    /// The first tensor that misses its bar, with its worst element.
    pub fn hold(
        &mut self,
        actual: &Results,
        expected: &Results,
        tolerance: Tolerance,
    ) -> Result<(), String> {
        let pairs = actual.named().into_iter().zip(expected.named());
        for (worst, ((name, actual), (_, expected))) in self.0.iter_mut().zip(pairs) {
            *worst = worst.max(tensor(name, actual, expected, tolerance.of(name))?);
        }
        Ok(())
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [out, lse, dq, dk, dv] = self.0;
        write!(
            f,
            "worst out {out:.1e}, lse {lse:.1e}, dq {dq:.1e}, dk {dk:.1e}, dv {dv:.1e}"
        )
    }
}

/// Holds one tensor to its bar and returns the worst error, `|actual - expected| / (1 + |expected|)`.
///
/// # Errors
/// The worst element, where it misses the bar.
pub fn tensor(name: &str, actual: &[f64], expected: &[f64], bar: f64) -> Result<f64, String> {
    if actual.len() != expected.len() {
        return Err(format!(
            "{name} has {} elements instead of {}",
            actual.len(),
            expected.len()
        ));
    }
    let errors = actual.iter().zip(expected).map(|(&a, &e)| error(a, e));
    let (at, worst) =
        errors.enumerate().fold(
            (0, 0.0),
            |worst, (at, error)| {
                if error > worst.1 { (at, error) } else { worst }
            },
        );
    if worst <= bar {
        return Ok(worst);
    }
    Err(format!(
        "{name}[{at}] is {:e} instead of {:e}: error {worst:e} above {bar:e}",
        actual[at], expected[at]
    ))
}

fn error(actual: f64, expected: f64) -> f64 {
    if actual == expected {
        return 0.0; // Also where both are -inf.
    }
    let error = (actual - expected).abs() / (1.0 + expected.abs());
    // NaN, or infinite where the other is not.
    if error.is_nan() { f64::INFINITY } else { error }
}

/// The first tensor whose bits differ, if any. NaNs are never equal.
pub fn difference(a: &Results, b: &Results) -> Option<String> {
    let pairs = a.named().into_iter().zip(b.named());
    pairs
        .filter_map(|((name, a), (_, b))| difference_in(name, a, b))
        .next()
}

/// The first element whose bits differ, if any. NaNs are never equal.
pub fn difference_in(name: &str, a: &[f64], b: &[f64]) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{name} has {} and {} elements", a.len(), b.len()));
    }
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() && !a.is_nan();
    let at = a.iter().zip(b).position(|pair| !same(pair))?;
    Some(format!("{name}[{at}] is {:e} and {:e}", a[at], b[at]))
}
