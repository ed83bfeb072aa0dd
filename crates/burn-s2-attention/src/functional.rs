//! The operation on tensors.

use std::sync::Arc;

use burn::backend::Dispatch;
#[cfg(any(feature = "flex", feature = "cubecl"))]
use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device, Tensor};
use s2_attention_kernels::cache::CacheProblem;
use s2_attention_kernels::{AttentionProblem, AttentionShape, ProblemError};
use s2_attention_pattern::Pattern;

use crate::ops::{AttentionCall, S2AttentionOps};
use crate::{Layout, S2AttentionError, S2AttentionOptions};

const DTYPES: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

/// S2 attention: `softmax(scale * q k^T) v` over the blocks that `pattern` keeps, without ever building the scores.
///
/// Gradients of `q`, `k` and `v` are computed where they are asked for; time and memory follow the kept blocks, and
/// two runs give the same bits.
///
/// # Shapes
/// With [`Layout::Bhsd`] (the default; [`Layout::Bshd`] swaps heads and tokens):
/// - q: `[batch, num_heads, seq_q, head_dim]`
/// - k: `[batch, num_kv_heads, seq_kv, head_dim]`; `num_kv_heads` divides `num_heads` and nothing is repeated
/// - v: `[batch, num_kv_heads, seq_kv, value_dim]`
/// - output: `[batch, num_heads, seq_q, value_dim]`, of the inputs' dtype (f32, f16, bf16 or f64; sums are kept in f32,
///   or f64 for f64). A query that attends nothing gets 0.
///
/// # Panics
/// With the text of the error that [`try_s2_attention`] returns.
///
/// # Example
#[cfg_attr(feature = "flex", doc = "```")]
#[cfg_attr(not(feature = "flex"), doc = "```no_run")]
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_s2_attention::{PatternConfig, S2AttentionOptions, s2_attention};
///
/// // Blocks of 16 tokens, 4 heads: each attends 2 local blocks and every 4th block before them.
/// let pattern = PatternConfig::local_stride(2, 4, 16, 4).build()?;
/// let device = Device::default();
/// let [q, k, v] = [(); 3].map(|_| Tensor::random([1, 4, 100, 32], Distribution::Default, &device));
/// let out = s2_attention(q, k, v, &pattern, &S2AttentionOptions::default());
/// assert_eq!(out.dims(), [1, 4, 100, 32]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn s2_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pattern: &Pattern,
    options: &S2AttentionOptions,
) -> Tensor<4> {
    s2_attention_with_lse(q, k, v, pattern, options).0
}

/// [`s2_attention`], with a typed error in place of a panic.
///
/// # Errors
/// For shapes, dtypes, devices, head counts or positions that cannot be honoured; nothing has run then.
pub fn try_s2_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pattern: &Pattern,
    options: &S2AttentionOptions,
) -> Result<Tensor<4>, S2AttentionError> {
    try_s2_attention_with_lse(q, k, v, pattern, options).map(|(out, _)| out)
}

/// [`s2_attention`] and the log-sum-exp of each query's scores: f32 `[batch, num_heads, seq_q]` (in either layout),
/// natural logarithm, `-inf` where a query attends nothing. Both carry gradients.
///
/// # Panics
/// With the text of the error that [`try_s2_attention_with_lse`] returns.
pub fn s2_attention_with_lse(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pattern: &Pattern,
    options: &S2AttentionOptions,
) -> (Tensor<4>, Tensor<3>) {
    try_s2_attention_with_lse(q, k, v, pattern, options).unwrap_or_else(|error| panic!("{error}"))
}

/// [`s2_attention_with_lse`], with a typed error in place of a panic.
///
/// # Errors
/// As [`try_s2_attention`].
pub fn try_s2_attention_with_lse(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pattern: &Pattern,
    options: &S2AttentionOptions,
) -> Result<(Tensor<4>, Tensor<3>), S2AttentionError> {
    let tensors = [q, k, v];
    checked_call(tensors, options.layout, |shape| {
        let (scale, spans) = (options.scale, options.positions.clone());
        match &options.left_padding {
            Some(padding) => AttentionProblem::padded(shape, pattern, scale, spans, padding),
            None => AttentionProblem::new(shape, pattern, scale, spans),
        }
    })
}

/// Runs the call that `problem` makes of the shape of `q`, `k` and `v`, all checked before.
pub(crate) fn checked_call(
    [q, k, v]: [Tensor<4>; 3],
    layout: Layout,
    problem: impl FnOnce(AttentionShape) -> Result<AttentionProblem, ProblemError>,
) -> Result<(Tensor<4>, Tensor<3>), S2AttentionError> {
    let shape = attention_shape(
        layout.sizes(q.dims()),
        layout.sizes(k.dims()),
        layout.sizes(v.dims()),
    )?;
    check_dtypes(&[("q", q.dtype()), ("k", k.dtype()), ("v", v.dtype())])?;
    same_device(&[("q", q.device()), ("k", k.device()), ("v", v.device())])?;
    let problem = checked_problem(&q.device().inner(), q.dtype(), problem(shape)?)?;
    let call = AttentionCall { problem, layout };
    // The autodiff backend asks for what gradients need; without it there are none.
    let (out, lse, _) = Dispatch::s2_attention_forward(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        call,
        false,
    );
    Ok((Tensor::from_dispatch(out), Tensor::from_dispatch(lse)))
}

/// A call that a device can run.
pub(crate) fn checked_problem(
    device: &Device,
    dtype: DType,
    problem: AttentionProblem,
) -> Result<Arc<AttentionProblem>, S2AttentionError> {
    if dtype != DType::F64 {
        problem.f32_scale()?;
    }
    let problem = Arc::new(problem);
    check_backend(device, dtype, &problem)?;
    Ok(problem)
}

fn attention_shape(
    q: [usize; 4],
    k: [usize; 4],
    v: [usize; 4],
) -> Result<AttentionShape, S2AttentionError> {
    let same = |tensor, axis, seen, other, accepted| {
        if seen == accepted {
            Ok(())
        } else {
            Err(S2AttentionError::AxisMismatch {
                tensor,
                axis,
                seen,
                other,
                accepted,
            })
        }
    };
    same("k", "batch", k[0], "q", q[0])?;
    same("v", "batch", v[0], "q", q[0])?;
    same("v", "num_kv_heads", v[1], "k", k[1])?;
    same("v", "seq_kv", v[2], "k", k[2])?;
    same("k", "head_dim", k[3], "q", q[3])?;
    Ok(AttentionShape {
        batch: q[0],
        num_heads: q[1],
        num_kv_heads: k[1],
        seq_q: q[2],
        seq_kv: k[2],
        head_dim: q[3],
        value_dim: v[3],
    })
}

/// Whether all have the dtype of the first, and that is one that is computed in.
pub(crate) fn check_dtypes(tensors: &[(&'static str, DType)]) -> Result<(), S2AttentionError> {
    let Some(&(name, first)) = tensors.first() else {
        return Ok(());
    };
    if !DTYPES.contains(&first) {
        return Err(S2AttentionError::DType {
            tensor: name,
            seen: first,
            accepted: format!("{DTYPES:?}"),
        });
    }
    match tensors.iter().find(|(_, dtype)| *dtype != first) {
        Some(&(tensor, seen)) => Err(S2AttentionError::DType {
            tensor,
            seen,
            accepted: format!("{first:?}, the dtype of {name}"),
        }),
        None => Ok(()),
    }
}

/// Whether a device can run the call.
fn check_backend(
    device: &Device,
    dtype: DType,
    problem: &Arc<AttentionProblem>,
) -> Result<(), S2AttentionError> {
    #[cfg(not(feature = "cubecl"))]
    let _ = (dtype, problem);
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => Ok(()),
        #[cfg(feature = "cubecl")]
        DispatchDevice::Cube(device) => {
            crate::backends::cubecl::check(device, problem, dtype).map_err(Into::into)
        }
        #[allow(unreachable_patterns)]
        device => Err(S2AttentionError::UnsupportedDevice {
            device: format!("{device:?}"),
        }),
    }
}

/// Whether a cache can be on the device, with pages of the pattern of such a call.
pub(crate) fn check_cache_backend(
    device: &Device,
    dtype: DType,
    problem: CacheProblem,
) -> Result<(), S2AttentionError> {
    #[cfg(not(feature = "cubecl"))]
    let _ = (dtype, problem);
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => Ok(()),
        #[cfg(feature = "cubecl")]
        DispatchDevice::Cube(device) => {
            crate::backends::cubecl::check_cache(device, problem, dtype).map_err(Into::into)
        }
        #[allow(unreachable_patterns)]
        device => Err(S2AttentionError::UnsupportedDevice {
            device: format!("{device:?}"),
        }),
    }
}

/// Whether the device can run a call on its cache.
pub(crate) fn check_cache_call(
    device: &Device,
    dtype: DType,
    problem: &CacheProblem,
) -> Result<(), S2AttentionError> {
    #[cfg(feature = "cubecl")]
    #[allow(irrefutable_let_patterns)]
    if let DispatchDevice::Cube(device) = device.as_dispatch() {
        crate::backends::cubecl::check_cache_call(device, problem, dtype)?;
    }
    #[cfg(not(feature = "cubecl"))]
    let _ = (device, dtype, problem);
    Ok(())
}

/// Whether the device can read an item of `tokens` tokens of such a call.
pub(crate) fn check_cache_read(
    device: &Device,
    dtype: DType,
    problem: &CacheProblem,
    tokens: usize,
) -> Result<(), S2AttentionError> {
    #[cfg(feature = "cubecl")]
    #[allow(irrefutable_let_patterns)]
    if let DispatchDevice::Cube(device) = device.as_dispatch() {
        crate::backends::cubecl::check_cache_read(device, problem, dtype, tokens)?;
    }
    #[cfg(not(feature = "cubecl"))]
    let _ = (device, dtype, problem, tokens);
    Ok(())
}

/// The most pages of a pool on the device, of `block_size` tokens of `width` elements; `None` for what all pools have.
pub(crate) fn most_pages(
    device: &Device,
    dtype: DType,
    block_size: usize,
    width: usize,
) -> Option<usize> {
    #[cfg(feature = "cubecl")]
    #[allow(irrefutable_let_patterns)]
    if let DispatchDevice::Cube(device) = device.as_dispatch() {
        return Some(crate::backends::cubecl::most_pages(
            device, dtype, block_size, width,
        ));
    }
    #[cfg(not(feature = "cubecl"))]
    let _ = (device, dtype, block_size, width);
    None
}

/// Whether there is memory for so many bytes on the CPU, where too many end the process. What is free on a GPU cannot be asked.
pub(crate) fn check_memory(device: &Device, bytes: usize) -> Result<(), S2AttentionError> {
    #[cfg(feature = "flex")]
    #[allow(irrefutable_let_patterns)]
    if let DispatchDevice::Flex(_) = device.as_dispatch()
        && Vec::<u8>::new().try_reserve_exact(bytes).is_err()
    {
        return Err(S2AttentionError::Memory { seen: bytes });
    }
    #[cfg(not(feature = "flex"))]
    let _ = (device, bytes);
    Ok(())
}

pub(crate) fn same_device(tensors: &[(&'static str, Device)]) -> Result<(), S2AttentionError> {
    let Some((first_name, first)) = tensors.first() else {
        return Ok(());
    };
    match tensors.iter().find(|(_, device)| device != first) {
        Some((tensor, device)) => Err(S2AttentionError::DeviceMismatch {
            tensor,
            seen: format!("{device:?}"),
            other: first_name,
            accepted: format!("{first:?}"),
        }),
        None => Ok(()),
    }
}

/// Merges attention over parts of the keys: `(out, lse)` of each part gives that of the whole.
///
/// `lse = log sum exp(lse_i)` and `out = sum exp(lse_i - lse) out_i` (Dao et al., arXiv 2205.14135, section 3.1). The
/// order of the parts matters to rounding only; a part in which a query attends nothing (`out = 0`, `lse = -inf`) leaves
/// the others as they are. Differentiable.
///
/// # Shapes
/// - out: `[batch, num_heads, seq_q, value_dim]` in the order of `layout`
/// - lse: `[batch, num_heads, seq_q]`
///
/// # Panics
/// With the text of the error that [`try_combine`] returns.
pub fn combine(parts: Vec<(Tensor<4>, Tensor<3>)>, layout: Layout) -> (Tensor<4>, Tensor<3>) {
    try_combine(parts, layout).unwrap_or_else(|error| panic!("{error}"))
}

/// [`combine`], with a typed error in place of a panic.
///
/// # Errors
/// If there are no parts, or parts have different shapes, dtypes or devices.
pub fn try_combine(
    parts: Vec<(Tensor<4>, Tensor<3>)>,
    layout: Layout,
) -> Result<(Tensor<4>, Tensor<3>), S2AttentionError> {
    let Some((first_out, _)) = parts.first() else {
        return Err(S2AttentionError::NoParts);
    };
    let (dtype, sizes) = (first_out.dtype(), layout.sizes(first_out.dims()));
    check_parts(&parts, dtype, sizes, layout)?;
    let devices = parts
        .iter()
        .flat_map(|(out, lse)| [("out", out.device()), ("lse", lse.device())]);
    same_device(&devices.collect::<Vec<_>>())?;
    // Weights are kept in at least the precision of lse.
    let wide = if dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };

    let (outs, lses): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let lses = Tensor::stack::<4>(lses, 0).cast(wide);
    let max = lses.clone().detach().max_dim(0);
    let nothing = max.clone().equal_elem(f64::NEG_INFINITY);
    // Where no part attends anything there is no maximum to subtract, and the logarithm of 0 is not taken.
    let shift = max.mask_fill(nothing.clone(), 0.0);
    let weights = (lses - shift.clone()).exp();
    let sum = weights.clone().sum_dim(0).mask_fill(nothing.clone(), 1.0);
    let lse = (shift + sum.clone().log()).mask_fill(nothing, f64::NEG_INFINITY);
    let weights = weights / sum;

    let mut out: Option<Tensor<4>> = None;
    for (index, part) in outs.into_iter().enumerate() {
        let weight: Tensor<3> = weights.clone().narrow(0, index, 1).squeeze_dim(0);
        let weight: Tensor<4> = match layout {
            Layout::Bhsd => weight.unsqueeze_dim(3),
            Layout::Bshd => weight.swap_dims(1, 2).unsqueeze_dim(3),
        };
        let term = part.cast(wide) * weight;
        out = Some(match out {
            Some(out) => out + term,
            None => term,
        });
    }
    let out = out.ok_or(S2AttentionError::NoParts)?;
    Ok((out.cast(dtype), lse.squeeze_dim(0).cast(DType::F32)))
}

fn check_parts(
    parts: &[(Tensor<4>, Tensor<3>)],
    dtype: DType,
    sizes: [usize; 4],
    layout: Layout,
) -> Result<(), S2AttentionError> {
    const AXES: [&str; 4] = ["batch", "num_heads", "seq_q", "value_dim"];
    let first = "the first part's out";
    for (out, lse) in parts {
        let lse_sizes = lse.dims();
        let seen = [
            ("out", layout.sizes(out.dims()).to_vec()),
            ("lse", lse_sizes.to_vec()),
        ];
        for (tensor, seen) in seen {
            for ((axis, seen), accepted) in AXES.into_iter().zip(seen).zip(sizes) {
                if seen != accepted {
                    return Err(S2AttentionError::AxisMismatch {
                        tensor,
                        axis,
                        seen,
                        other: first,
                        accepted,
                    });
                }
            }
        }
        let dtypes = [
            ("out", out.dtype(), dtype),
            ("lse", lse.dtype(), DType::F32),
        ];
        for (tensor, seen, accepted) in dtypes {
            if seen != accepted {
                return Err(S2AttentionError::DType {
                    tensor,
                    seen,
                    accepted: format!("{accepted:?}"),
                });
            }
        }
    }
    Ok(())
}
