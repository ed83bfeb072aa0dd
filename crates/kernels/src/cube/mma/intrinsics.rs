//! What CubeCL has no portable operation for.

use cubecl::prelude::*;

/// `2^x`. With `approximate` by the instruction of NVIDIA's GPUs (2 ulp, subnormals are 0), which only CubeCL's C++
/// compiler for CUDA takes.
#[cube]
pub(in crate::cube) fn exp2(x: f32, #[comptime] approximate: bool) -> f32 {
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
pub(in crate::cube) fn copies_done() {
    gpu_asm!("cp.async.wait_all;", options(explicit_mem));
}

/// Begins to copy 16 bytes to an address of shared memory: the first `bytes` from `source`, then zeros. CubeCL's own copy
/// does not compile where addresses have 64 bits.
#[cube]
pub(in crate::cube) fn copy_chunk<T: CubePrimitive>(source: &[T], address: u32, bytes: u32) {
    let source = source.as_ptr();
    gpu_asm!(
        "cp.async.cg.shared.global [{to}], [{from}], 16, {bytes};",
        to = in(_) address,
        from = mem_in(_) source,
        bytes = in(_) bytes,
        options(explicit_mem)
    );
}

/// The address of an element of shared memory, as instructions take it.
#[cube]
pub(in crate::cube) fn shared_address<T: CubePrimitive>(slice: &[T]) -> u32 {
    let address: u32;
    let pointer = slice.as_ptr();
    gpu_asm!(
        "{{ .reg .u64 t; cvta.to.shared.u64 t, {p}; cvt.u32.u64 {a}, t; }}",
        p = in(_) pointer,
        a = out(_) address,
        options(pure, nomem)
    );
    address
}

/// Four matrices of `8 x 8` elements of 2 bytes, `offset` bytes after the row at this unit's address.
#[cube]
pub(in crate::cube) fn load_matrices(
    address: u32,
    #[comptime] offset: usize,
    #[comptime] transpose: bool,
) -> Vector<u32, Const<4>> {
    let matrices: Vector<u32, Const<4>>;
    gpu_asm!(
        "ldmatrix.sync.aligned.m8n8.x4{kind}.shared.b16 {y}, [{a}+{offset}];",
        kind = const if transpose { ".trans" } else { "" },
        y = out(_) matrices,
        a = in(_) address,
        offset = const offset,
        options(readonly)
    );
    matrices
}
