//! The two element types that the engine computes in, and their two primitives: `exp2` and the matrix product.

use std::ops::{Add, AddAssign, Div, Mul, Sub};

use macerator::{
    Scalar, Simd, VAdd, VMul, VMulAdd, VOrd, VRoundToInt, VSelect, VSub, VToFloat, Vector,
};

/// f32 or f64: what scores, softmax and accumulators are kept in.
pub trait Real:
    Scalar
    + VAdd
    + VSub
    + VMul
    + VMulAdd
    + VOrd
    + VSelect
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + Send
    + Sync
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Plus infinity.
    const INFINITY: Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;
    /// Rounds to the type.
    fn from_f64(value: f64) -> Self;
    /// Widens to f64.
    fn to_f64(self) -> f64;
    /// `2^x` in every lane for `x` up to 0; exactly 0 where the result would be subnormal, NaN of NaN.
    fn exp2<S: Simd>(x: Vector<S, Self>) -> Vector<S, Self>;
}

/// `ln(2)^n / n!`: the Taylor coefficients of `2^x`. On `|x| <= 1/2` nine of them reach f32's rounding and fifteen f64's.
const EXP2_SERIES: [f64; 15] = {
    let mut series = [1.0; 15];
    let mut n = 1;
    while n < series.len() {
        series[n] = series[n - 1] * std::f64::consts::LN_2 / n as f64;
        n += 1;
    }
    series
};

macro_rules! impl_real {
    ($real:ident, $int:ident, terms: $terms:literal) => {
        impl Real for $real {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $real::INFINITY;
            const NEG_INFINITY: Self = $real::NEG_INFINITY;

            fn from_f64(value: f64) -> Self {
                value as $real
            }

            fn to_f64(self) -> f64 {
                self.into()
            }

            #[inline(always)]
            fn exp2<S: Simd>(x: Vector<S, Self>) -> Vector<S, Self> {
                const MANTISSA_BITS: u32 = $real::MANTISSA_DIGITS - 1;
                const BIAS: $int = $real::MAX_EXP as $int - 1;
                const SMALLEST: $real = ($real::MIN_EXP - 1) as $real;
                // 2^x = 2^n * 2^f with n whole and |f| <= 1/2.
                let whole = $real::vround_to_int(x);
                let fraction = x - $int::vto_float(whole);
                let mut power = (EXP2_SERIES[$terms - 1] as $real).splat::<S>();
                let mut term = $terms - 1;
                while term > 0 {
                    term -= 1;
                    power = power.mul_add(fraction, (EXP2_SERIES[term] as $real).splat());
                }
                let exponent = ((whole + BIAS.splat()) << MANTISSA_BITS).reinterpret::<$real>();
                // A NaN is not below anything, and stays.
                let vanishes = x.lt(SMALLEST.splat());
                vanishes.select($real::ZERO.splat(), power * exponent)
            }
        }
    };
}

impl_real!(f32, i32, terms: 8);
impl_real!(f64, i64, terms: 14);

/// A matrix operand: element `(i, j)` is `data[i * strides.0 + j * strides.1]`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, F> {
    data: &'a [F],
    strides: (usize, usize),
}

impl<'a, F> Matrix<'a, F> {
    /// Rows of neighbouring elements, `stride` apart.
    pub(super) fn rows(data: &'a [F], stride: usize) -> Self {
        Self {
            data,
            strides: (stride, 1),
        }
    }

    /// The transpose of [`Matrix::rows`].
    pub(super) fn columns(data: &'a [F], stride: usize) -> Self {
        Self {
            data,
            strides: (1, stride),
        }
    }

    /// The matrix without its first `count` columns.
    fn skip_columns(self, count: usize) -> Self {
        Self {
            data: &self.data[count * self.strides.1..],
            ..self
        }
    }

    fn last(&self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.strides.0 + (columns - 1) * self.strides.1
    }
}

/// `c = beta * c + alpha * a b` for `a [m, k]`, `b [k, n]` and `c [m, n]` with rows `c_stride` apart. With
/// `beta = None` the old `c` is not read.
pub(super) fn product<F: Real>(
    [m, n, k]: [usize; 3],
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    c: &mut [F],
    c_stride: usize,
    alpha: F,
    beta: Option<F>,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(a.last(m, k) < a.data.len(), "left operand out of bounds");
    assert!(b.last(k, n) < b.data.len(), "right operand out of bounds");
    assert!((m - 1) * c_stride + n <= c.len(), "product out of bounds");
    // SAFETY: every element that the product touches is in bounds by the assertions above; `c` is unshared.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_stride as isize,
            beta.is_some(),
            a.data.as_ptr(),
            a.strides.1 as isize,
            a.strides.0 as isize,
            b.data.as_ptr(),
            b.strides.1 as isize,
            b.strides.0 as isize,
            beta.unwrap_or(F::ZERO),
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Elements of a dot product that are summed in one go. Longer ones are sums of such sums, which keeps rounding errors
/// small for wide heads.
const DOT_STEP: usize = 64;

/// `c = a b` as [`product`], with the sums over `k` in steps of [`DOT_STEP`]. The rows of `b` are `b_stride` apart.
pub(super) fn dot_product<F: Real>(
    [m, n, k]: [usize; 3],
    a: Matrix<'_, F>,
    (b, b_stride): (&[F], usize),
    c: &mut [F],
    c_stride: usize,
) {
    for first in (0..k).step_by(DOT_STEP) {
        product(
            [m, n, DOT_STEP.min(k - first)],
            a.skip_columns(first),
            Matrix::rows(&b[first * b_stride..], b_stride),
            c,
            c_stride,
            F::ONE,
            (first > 0).then_some(F::ONE),
        );
    }
}
