//! Tensors to compute on, and how far apart results are.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::host::values;

/// Normal values in f32, the same for the same `seed`.
pub fn normal<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(normal_values(shape.iter().product(), seed), shape),
        (device, DType::F32),
    )
}

/// Standard normal values from a fixed generator (SplitMix64 and Box-Muller), so that no test depends on the state of a device.
pub fn normal_values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut uniform = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count)
        .map(|_| (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos())
        .collect()
}

/// Token ids below `vocab_size`, the same at every call.
pub fn tokens(batch: usize, seq: usize, vocab_size: usize, device: &Device) -> Tensor<2, Int> {
    let draw = |value: f64| (value.abs() * 1e6) as i32 % vocab_size as i32;
    let ids: Vec<i32> = normal_values(batch * seq, 99)
        .into_iter()
        .map(draw)
        .collect();
    Tensor::from_data(TensorData::new(ids, [batch, seq]), device)
}

/// The largest, or NaN where there is one: a result that is no number is far from any.
pub fn largest(distances: impl IntoIterator<Item = f64>) -> f64 {
    distances.into_iter().fold(0.0, |largest, distance| {
        if distance > largest || distance.is_nan() {
            distance
        } else {
            largest
        }
    })
}

/// Largest `|a - b| / (1 + |b|)`.
#[track_caller]
pub fn distance<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let pairs = values(a).into_iter().zip(values(b));
    largest(pairs.map(|(a, b)| (a - b).abs() / (1.0 + b.abs())))
}

#[track_caller]
pub fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f64) {
    let distance = distance(a, b);
    assert!(
        distance <= tolerance,
        "distance {distance:e} is above {tolerance:e}"
    );
}
