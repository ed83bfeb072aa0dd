//! What CubeCL has no portable operation for.

use cubecl::prelude::*;

/// `2^x`. With `approximate` by the instruction of NVIDIA's GPUs (2 ulp, subnormals are 0), which only CubeCL's C++
/// compiler for CUDA takes.
#[cube]
pub(super) fn exp2(x: f32, #[comptime] approximate: bool) -> f32 {
    if comptime!(approximate) {
        exp2_approximate(x)
    } else {
        (x * f32::new(core::f32::consts::LN_2)).exp()
    }
}

#[cube]
fn exp2_approximate(x: f32) -> f32 {
    let y: f32;
    gpu_asm!(
        "ex2.approx.ftz.f32 {y}, {x};",
        y = out(_) y,
        x = in(_) x,
        options(pure, nomem)
    );
    y
}

/// Waits for the copies of this unit.
#[cube]
pub(super) fn copies_done() {
    gpu_asm!("cp.async.wait_all;", options(explicit_mem));
}
