//! Launches of the engines of tensor cores. No kernel reads or writes beyond its tensors, which are checked.

use cubecl::prelude::*;
use cubecl::server::Handle;

use super::size::{Pass, dq_pass, forward_pass, key_pass, sums_both, units};
use super::{LANES, dkdv, dq, forward};
use crate::AttentionShape;
use crate::cube::attention::CubeAttention;
use crate::cube::checks::processors;
use crate::cube::config::Config;
use crate::cube::error::CubeError;
use crate::cube::indexed::Indexed;
use crate::cube::kept::{KeptPart, KeptPlan};
use crate::cube::select::Engine;
use crate::cube::tensors::{DeviceTensor, ForwardOutputs, KeyGradients};
use crate::cube::tile::Tile;
use crate::cube::wgmma;
use crate::cube::wgmma::partial_sums::PartialSums;
use crate::cube::wgmma::size::{forward_slots, gradient_slots, kept_slots};

/// What a pass is compiled for: `pass` for products of one plane, a ring with `slots` for those of four.
fn config(
    call: &CubeAttention,
    of: &Indexed,
    pass: Pass,
    slots: fn(usize, &AttentionShape, usize) -> Option<usize>,
) -> Config {
    let config = call.config(of);
    let properties = call.client.properties();
    let (visited, slots) = if call.choice.engine == Engine::Wgmma {
        let most = properties.hardware.max_shared_memory_size;
        let slots = slots(config.owned.rows, call.problem().shape(), most);
        // What has none is not chosen.
        (wgmma::size::VISITED, slots.unwrap_or(0))
    } else {
        (pass.visited, 0)
    };
    Config {
        parts: pass.parts,
        visited: Tile {
            rows: visited,
            ..config.visited
        },
        slots,
        // Asynchronous copies are a feature of CubeCL's C++ compiler for CUDA alone, which also takes instructions.
        instructions: properties.features.copy_async,
        ..config
    }
}

fn cube_dim(config: Config) -> CubeDim {
    let units = match config.slots {
        0 => units(config.owned.rows, config.parts),
        _ => wgmma::size::units(config.owned.rows),
    };
    CubeDim::new_1d(units as u32)
}

/// As many cubes as there are processors, which take tile after tile: at most one for each of `tiles`.
fn staying(call: &CubeAttention, tiles: usize) -> CubeCount {
    let cubes = match processors(call.client.properties()) {
        0 => tiles,
        processors => tiles.min(processors),
    };
    CubeCount::Static(cubes.max(1) as u32, 1, 1)
}

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
    let products = call.choice.products;
    let pass = forward_pass(of.owned.rows, shape.head_dim, shape.value_dim, products);
    let config = Config {
        rounding: outputs.rounding.is_some(),
        ..config(call, of, pass, forward_slots)
    };
    macro_rules! launch {
        ($kernel:path, $count:expr $(, $tiles:expr)?) => {
            unsafe {
                $kernel(
                    &call.client,
                    $count,
                    cube_dim(config),
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
                    $($tiles,)?
                    config,
                    call.dtype,
                )
            }
        };
    }
    if config.slots == 0 {
        launch!(forward::forward::launch_unchecked, count);
    } else {
        let tiles = call.query_tiles(of);
        launch!(
            wgmma::forward::forward::launch_unchecked,
            staying(call, tiles),
            tiles as u32
        );
    }
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
    let config = config(
        call,
        &call.training,
        dq_pass(
            call.training.owned.rows,
            shape.head_dim,
            call.choice.products,
        ),
        gradient_slots,
    );
    let kernel = match config.slots {
        0 => dq::dq::launch_unchecked,
        _ => wgmma::dq::dq::launch_unchecked,
    };
    unsafe {
        kernel(
            &call.client,
            count,
            cube_dim(config),
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
            config,
            call.dtype,
        );
    }
    Ok(())
}

/// Launches dQ, dK and dV of all heads, where dK and dV keep dS for dQ.
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn all_gradients(
    call: &CubeAttention,
    q: &DeviceTensor,
    k: &DeviceTensor,
    v: &DeviceTensor,
    d_out: &DeviceTensor,
    stats: &Handle,
    target: &DeviceTensor,
    keys: &KeyGradients,
    plan: &KeptPlan,
) -> Result<(), CubeError> {
    let shape = call.problem().shape();
    let group = shape.num_heads / shape.num_kv_heads;
    let scores = call.client.empty(plan.bytes(group));
    for kv_heads in &plan.parts {
        let part = KeptPart {
            kept: &plan.kept,
            scores: &scores,
            kv_heads: kv_heads.clone(),
        };
        dkdv(call, q, k, v, d_out, stats, keys, Some(&part))?;
        dq_kept(call, k, stats, target, &part)?;
    }
    Ok(())
}

/// Launches dQ of some heads by the dS that are kept.
fn dq_kept(
    call: &CubeAttention,
    k: &DeviceTensor,
    stats: &Handle,
    target: &DeviceTensor,
    part: &KeptPart,
) -> Result<(), CubeError> {
    let shape = call.problem().shape();
    let pass = dq_pass(
        call.training.owned.rows,
        shape.head_dim,
        call.choice.products,
    );
    let config = Config {
        kept_bands: part.kept.bands,
        ..config(call, &call.training, pass, kept_slots)
    };
    let heads = part.heads(shape.num_heads / shape.num_kv_heads);
    let count = call.grid(call.training.tiles.rows * heads.len())?;
    unsafe {
        wgmma::dq_kept::dq_kept::launch_unchecked(
            &call.client,
            count,
            cube_dim(config),
            call.address_type(&[&k.handle, &target.handle, part.scores]),
            LANES,
            call.arg(k, LANES),
            part.scores_arg(),
            part.kept.arg(),
            call.stats_arg(stats),
            call.arg(target, LANES),
            call.training.arg(),
            call.problem.scale() as f32,
            shape.batch as u32,
            shape.num_heads as u32,
            shape.num_kv_heads as u32,
            shape.seq_q as u32,
            part.kept.tiles as u32,
            part.kept.first(heads.start),
            heads.start as u32,
            heads.len() as u32,
            config,
            call.dtype,
        );
    }
    Ok(())
}

/// Launches dK and dV, of the heads of `part` where dS is kept: at once where a unit has registers for the sums of both.
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn dkdv(
    call: &CubeAttention,
    q: &DeviceTensor,
    k: &DeviceTensor,
    v: &DeviceTensor,
    d_out: &DeviceTensor,
    stats: &Handle,
    target: &KeyGradients,
    part: Option<&KeptPart>,
) -> Result<(), CubeError> {
    let shape = call.problem().shape();
    let (keys, values) = (target.dk.is_some(), target.dv.is_some());
    let passes = if sums_both(shape.head_dim, shape.value_dim, call.choice.products) {
        vec![(keys, values)]
    } else {
        vec![(keys, false), (false, values)]
    };
    for pass in passes.into_iter().filter(|(keys, values)| *keys || *values) {
        dkdv_pass(call, q, k, v, d_out, stats, target, part, pass)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn dkdv_pass(
    call: &CubeAttention,
    q: &DeviceTensor,
    k: &DeviceTensor,
    v: &DeviceTensor,
    d_out: &DeviceTensor,
    stats: &Handle,
    target: &KeyGradients,
    part: Option<&KeptPart>,
    (keys, values): (bool, bool),
) -> Result<(), CubeError> {
    let shape = call.problem().shape();
    let kv_heads = part.map_or(0..shape.num_kv_heads, |part| part.kv_heads.clone());
    let (dv_at, [dv_sequence, dv_head, dv_token]) = target.dv_vectors((LANES, call.dtype));
    let (rows, wanted) = (call.training.owned.rows, (keys, values));
    let products = call.choice.products;
    let pass = key_pass(rows, shape.head_dim, shape.value_dim, wanted, products);
    let config = Config {
        keys,
        values,
        kept_bands: part.filter(|_| keys).map_or(0, |part| part.kept.bands),
        ..config(call, &call.training, pass, gradient_slots)
    };
    let split = (config.slots > 0)
        .then(|| call.split(&kv_heads, config))
        .flatten();
    let config = Config {
        splits: split.is_some(),
        ..config
    };
    let partial = split
        .map(|split| PartialSums::new(call, split, kv_heads.len(), config))
        .transpose()?;
    let scores = part.map_or(&target.handle, |part| part.scores);
    let handles = [
        &q.handle,
        &k.handle,
        &v.handle,
        &d_out.handle,
        &target.handle,
        scores,
        partial.as_ref().map_or(&target.handle, |of| &of.handle),
    ];
    macro_rules! launch {
        ($kernel:path, $count:expr $(, $kept:expr)*) => {
            unsafe {
                $kernel(
                    &call.client,
                    $count,
                    cube_dim(config),
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
                    f32::INFINITY,
                    dv_at,
                    dv_sequence,
                    dv_head,
                    dv_token,
                    shape.batch as u32,
                    shape.num_heads as u32,
                    shape.num_kv_heads as u32,
                    shape.seq_q as u32,
                    $($kept,)*
                    config,
                    call.dtype,
                )
            }
        };
    }
    if config.slots == 0 {
        launch!(
            dkdv::dkdv::launch_unchecked,
            call.key_grid(shape.num_kv_heads)?
        );
        return call.launched("dkdv", config, &target.handle);
    }
    let (split_tiles, cubes) = partial.as_ref().map_or((0, 1), |of| (of.tiles, of.cubes));
    let tiles_of_grid = call.training.tiles.columns * kv_heads.len();
    let count = call.grid(tiles_of_grid + split_tiles * (cubes - 1))?;
    let group = shape.num_heads / shape.num_kv_heads;
    let unused = |len| unsafe { BufferArg::from_raw_parts(call.unused.handle.clone(), len) };
    let (scores, starts, tiles, first) = match part.filter(|_| keys) {
        Some(part) => (
            part.scores_arg(),
            part.kept.arg(),
            part.kept.tiles,
            part.kept.first(part.heads(group).start),
        ),
        None => (unused(1), unused(1), 0, 0),
    };
    launch!(
        wgmma::dkdv::dkdv::launch_unchecked,
        count,
        scores,
        starts,
        tiles as u32,
        first,
        kv_heads.start as u32,
        kv_heads.len() as u32,
        partial.as_ref().map_or(unused(1), |of| of.arg(2)),
        split_tiles as u32,
        cubes as u32
    );
    call.launched("dkdv", config, &target.handle)?;
    match &partial {
        Some(partial) => partial.add(call, target, &kv_heads, config),
        None => Ok(()),
    }
}
