//! Launches of the unit engine.

use cubecl::prelude::*;
use cubecl::server::Handle;

use super::size::LANES;
use super::{dkdv, dq, forward};
use crate::cube::attention::CubeAttention;
use crate::cube::config::Config;
use crate::cube::error::CubeError;
use crate::cube::tensors::{DeviceTensor, ForwardOutputs, KeyGradients};

/// Launches the forward pass.
pub(in crate::cube) fn forward(
    call: &CubeAttention,
    q: &DeviceTensor,
    k: &DeviceTensor,
    v: &DeviceTensor,
    outputs: &ForwardOutputs,
) -> Result<(), CubeError> {
    let shape = call.problem().shape();
    let of = call.of_forward(outputs);
    let rounding = outputs.rounding.as_ref().unwrap_or(&call.unused);
    let count = call.query_grid(of)?;
    // Tensors are checked, and rows without a token are not read.
    unsafe {
        forward::forward::launch_unchecked(
            &call.client,
            count,
            CubeDim::new_1d(call.choice.unit.units as u32),
            call.address_type(&[
                &q.handle,
                &k.handle,
                &v.handle,
                &outputs.out.handle,
                &rounding.handle,
            ]),
            LANES,
            call.arg(q, LANES),
            call.arg(k, LANES),
            call.arg(v, LANES),
            call.arg(&outputs.out, LANES),
            call.arg(rounding, LANES),
            call.floats(&outputs.lse),
            of.arg(),
            call.problem.scale() as f32,
            f32::NEG_INFINITY,
            shape.num_heads as u32,
            shape.num_kv_heads as u32,
            shape.seq_q as u32,
            Config {
                rounding: outputs.rounding.is_some(),
                ..call.config(of)
            },
            call.dtype,
        )
    };
    Ok(())
}

/// Launches dQ.
pub(in crate::cube) fn dq(
    call: &CubeAttention,
    q: &DeviceTensor,
    k: &DeviceTensor,
    v: &DeviceTensor,
    d_out: &DeviceTensor,
    stats: &Handle,
    target: &DeviceTensor,
) -> Result<(), CubeError> {
    let shape = call.problem().shape();
    let handles = [
        &q.handle,
        &k.handle,
        &v.handle,
        &d_out.handle,
        &target.handle,
    ];
    let count = call.query_grid(&call.training)?;
    // Tensors are checked, and rows without a token are not read.
    unsafe {
        dq::dq::launch_unchecked(
            &call.client,
            count,
            CubeDim::new_1d(call.choice.unit.units as u32),
            call.address_type(&handles),
            LANES,
            call.arg(q, LANES),
            call.arg(k, LANES),
            call.arg(v, LANES),
            call.arg(d_out, LANES),
            call.stats_arg(stats),
            call.arg(target, LANES),
            call.training.arg(),
            call.problem.scale() as f32,
            shape.batch as u32,
            shape.num_heads as u32,
            shape.num_kv_heads as u32,
            shape.seq_q as u32,
            call.config(&call.training),
            call.dtype,
        )
    };
    Ok(())
}

/// Launches dK and dV.
pub(in crate::cube) fn dkdv(
    call: &CubeAttention,
    q: &DeviceTensor,
    k: &DeviceTensor,
    v: &DeviceTensor,
    d_out: &DeviceTensor,
    stats: &Handle,
    target: &KeyGradients,
) -> Result<(), CubeError> {
    let shape = call.problem().shape();
    let handles = [
        &q.handle,
        &k.handle,
        &v.handle,
        &d_out.handle,
        &target.handle,
    ];
    let (dv_at, [dv_sequence, dv_head, dv_token]) = target.dv_vectors((LANES, call.dtype));
    let count = call.key_grid(shape.num_kv_heads)?;
    let config = Config {
        keys: target.dk.is_some(),
        values: target.dv.is_some(),
        ..call.config(&call.training)
    };
    // Tensors are checked, and rows without a token are not read.
    unsafe {
        dkdv::dkdv::launch_unchecked(
            &call.client,
            count,
            CubeDim::new_1d(call.choice.unit.units as u32),
            call.address_type(&handles),
            LANES,
            call.arg(q, LANES),
            call.arg(k, LANES),
            call.arg(v, LANES),
            call.arg(d_out, LANES),
            call.stats_arg(stats),
            call.arg(&target.dk_tensor(), LANES),
            call.training.arg(),
            call.problem.scale() as f32,
            dv_at,
            dv_sequence,
            dv_head,
            dv_token,
            shape.batch as u32,
            shape.num_heads as u32,
            shape.num_kv_heads as u32,
            shape.seq_q as u32,
            config,
            call.dtype,
        )
    };
    call.launched("dkdv", config, &target.handle)
}
