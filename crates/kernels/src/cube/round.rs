//! Results in the type of the tensors, rounded to the nearest, ties to even.
//!
//! CUDA's and HIP's conversions round so. Vulkan and WebGPU leave the direction to the driver, and some cut digits off:
//! there, what is converted is made a number of the type first.

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

/// Who rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rounding {
    /// The conversion.
    Conversion,
    /// The kernel, to f16.
    F16,
    /// The kernel, to bf16.
    Bf16,
}

impl Rounding {
    /// Who rounds to `dtype` on the runtime of this name.
    pub(super) fn of(runtime: &str, dtype: ElemType) -> Self {
        match dtype {
            ElemType::Float(FloatKind::F16) if runtime.starts_with("wgpu") => Self::F16,
            ElemType::Float(FloatKind::BF16) if runtime.starts_with("wgpu") => Self::Bf16,
            _ => Self::Conversion,
        }
    }
}

/// `x` in the type of a tensor.
#[cube]
pub(super) fn rounded<E: Float, N: Size>(
    x: Vector<f32, N>,
    #[comptime] lanes: usize,
    #[comptime] rounding: Rounding,
) -> Vector<E, N> {
    let mut nearest = x;
    if comptime!(rounding != Rounding::Conversion) {
        #[unroll]
        for lane in 0..lanes {
            let value = if comptime!(rounding == Rounding::F16) {
                nearest_f16(x.extract(lane))
            } else {
                nearest_bf16(x.extract(lane))
            };
            nearest.insert(lane, value);
        }
    }
    Vector::cast_from(nearest)
}

/// The f16 nearest to `x`.
#[cube]
fn nearest_f16(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    let sign = bits & 0x8000_0000u32;
    let exponent = (bits >> 23u32) & 255u32;
    // 13 digits of 23 more than f16 has, and one more for each power of 2 below its smallest normal number, 2^-14.
    let digits = min(13u32 + (113u32 - min(exponent, 113u32)), 23u32);
    let mut nearest = without_digits(bits, digits);
    if exponent < 103u32 {
        // Below its smallest number, 2^-24: that, or 0 up to half of it.
        let smallest = select(bits - sign > 0x3300_0000u32, 0x3380_0000u32, 0u32);
        nearest = sign | smallest;
    }
    if nearest - sign >= 0x4780_0000u32 {
        // From 2^16 on there is infinity.
        nearest = sign | 0x7f80_0000u32;
    }
    select(exponent == 255u32, x, f32::reinterpret(nearest))
}

/// The bf16 nearest to `x`.
#[cube]
fn nearest_bf16(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    let exponent = (bits >> 23u32) & 255u32;
    let nearest = without_digits(bits, 16u32.runtime());
    select(exponent == 255u32, x, f32::reinterpret(nearest))
}

/// The number of those bits without its last `digits` digits.
#[cube]
fn without_digits(bits: u32, digits: u32) -> u32 {
    let rest = (1u32 << digits) - 1u32;
    let odd = (bits >> digits) & 1u32;
    // `rest` without its first digit: halves go up from odd numbers only.
    (bits + (rest >> 1u32) + odd) & !rest
}
