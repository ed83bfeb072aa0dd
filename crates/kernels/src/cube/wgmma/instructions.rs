//! Instructions of Hopper's GPUs that CubeCL has no operation for, other than products.

use cubecl::prelude::*;

use crate::cube::mma::fragments::Pair;

/// Makes a barrier of shared memory that `count` arrivals complete.
#[cube]
pub(super) fn new_barrier(address: u32, #[comptime] count: usize) {
    gpu_asm!(
        "mbarrier.init.shared::cta.b64 [{address}], {count};",
        address = in(_) address,
        count = const count,
        options(readonly)
    );
}

/// Arrives at a barrier: all that this unit has written is seen by who waits for it.
#[cube]
pub(super) fn arrive(address: u32) {
    gpu_asm!(
        "mbarrier.arrive.shared::cta.b64 _, [{address}];",
        address = in(_) address,
        options(readonly)
    );
}

/// One unit of the plane arrives at a barrier, for all of it: what others of the plane have read, they have read before.
#[cube]
pub(super) fn arrive_as_plane(address: u32) {
    gpu_asm!(
        "{{ .reg .pred one; bar.warp.sync 0xffffffff; elect.sync _|one, 0xffffffff; @one mbarrier.arrive.shared::cta.b64 _, [{address}]; }}",
        address = in(_) address,
        options(readonly)
    );
}

/// Arrives at a barrier once all copies that this unit has begun are done.
#[cube]
pub(super) fn arrive_after_copies(address: u32) {
    gpu_asm!(
        "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [{address}];",
        address = in(_) address,
        options(readonly)
    );
}

/// Waits until a phase of a barrier, 0 or 1 by turns, is complete.
#[cube]
pub(super) fn wait_for(address: u32, phase: u32) {
    // Instructions take the address of a variable, and the value of an expression.
    let phase = phase & 1u32;
    gpu_asm!(
        "{{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [{address}], {phase}; @!done bra again; }}",
        address = in(_) address,
        phase = in(_) phase,
        options(readonly)
    );
}

/// Waits for `count` units, this one among them, that wait at the same `barrier`, 1 to 15.
#[cube]
pub(super) fn sync_units(#[comptime] barrier: usize, #[comptime] count: usize) {
    gpu_asm!(
        "bar.sync {barrier}, {count};",
        barrier = const barrier,
        count = const count,
        options(readonly)
    );
}

/// As [`sync_units`], for a barrier that only the device knows.
#[cube]
pub(super) fn sync_group(barrier: u32, #[comptime] count: usize) {
    let barrier = barrier & 15u32;
    gpu_asm!(
        "bar.sync {barrier}, {count};",
        barrier = in(_) barrier,
        count = const count,
        options(readonly)
    );
}

/// Waits for all of this unit's copies, and shows what they wrote to products.
#[cube]
pub(super) fn copies_done() {
    gpu_asm!(
        "cp.async.wait_all; fence.proxy.async.shared::cta;",
        options(readonly)
    );
}

/// Shows what this unit wrote to shared memory, or has been told of, to products.
#[cube]
pub(super) fn writes_done() {
    gpu_asm!("fence.proxy.async.shared::cta;", options(readonly));
}

/// Changes the registers that each unit of a group of 128 has: `more` than before, or fewer.
#[cube]
pub(super) fn set_registers(#[comptime] count: usize, #[comptime] more: bool) {
    gpu_asm!(
        "setmaxnreg.{change}.sync.aligned.u32 {count};",
        change = const if more { "inc" } else { "dec" },
        count = const count,
        options(readonly)
    );
}

/// Begins to copy 16 bytes, `beyond` bytes after the first of `source`, to `offset` bytes after an address of shared memory. Beyond
/// `source` there must be such bytes, which no unit writes.
#[cube]
pub(super) fn copy_all<T: CubePrimitive>(
    source: &[T],
    #[comptime] beyond: usize,
    address: u32,
    #[comptime] offset: usize,
) {
    let source = source.as_ptr();
    gpu_asm!(
        "cp.async.cg.shared.global [{to}+{offset}], [{from}+{beyond}], 16;",
        to = in(_) address,
        from = mem_in(_) source,
        beyond = const beyond,
        offset = const offset,
        options(explicit_mem)
    );
}

/// As [`copy_all`], but of the bytes after the first `bytes` zeros.
#[cube]
pub(super) fn copy_some<T: CubePrimitive>(
    source: &[T],
    #[comptime] beyond: usize,
    address: u32,
    bytes: u32,
    #[comptime] offset: usize,
) {
    let source = source.as_ptr();
    gpu_asm!(
        "cp.async.cg.shared.global [{to}+{offset}], [{from}+{beyond}], 16, {bytes};",
        to = in(_) address,
        from = mem_in(_) source,
        beyond = const beyond,
        bytes = in(_) bytes,
        offset = const offset,
        options(explicit_mem)
    );
}

/// Writes four matrices of `8 x 8` elements of 2 bytes, of which each unit of a plane holds two: the rows that begin `offset` bytes after
/// the addresses of 32 units, 16 bytes each.
#[cube]
pub(super) fn store_matrices(
    address: u32,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    #[comptime] offset: usize,
) {
    gpu_asm!(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [{to}+{offset}], {{{a}, {b}, {c}, {d}}};",
        to = in(_) address,
        offset = const offset,
        a = in(_) a,
        b = in(_) b,
        c = in(_) c,
        d = in(_) d,
        options(readonly)
    );
}

/// The transpose of a matrix of `8 x 8` elements of 2 bytes, of which each unit of a plane holds two.
#[cube]
pub(super) fn transposed(word: u32) -> u32 {
    let transposed: u32;
    gpu_asm!(
        "movmatrix.sync.aligned.m8n8.trans.b16 {transposed}, {word};",
        transposed = out(_) transposed,
        word = in(_) word,
        options(readonly)
    );
    transposed
}

/// Two numbers of shared memory, the first `offset` bytes after a multiple of 8.
#[cube]
pub(super) fn load_pair(address: u32, #[comptime] offset: usize) -> Pair<f32> {
    let pair: Pair<f32>;
    gpu_asm!(
        "ld.shared.v2.f32 {pair}, [{from}+{offset}];",
        pair = out(_) pair,
        from = in(_) address,
        offset = const offset,
        options(readonly)
    );
    pair
}
