//! Products of four planes together, by Hopper's `wgmma`: 64 rows of a left operand at a time, and operands that stay in
//! shared memory.
//!
//! Each plane has the sums of 16 of the rows, and its units hold them as they hold those of products of one plane.

use std::fmt::Write;

use cubecl::prelude::*;

use super::fragments::{Pair, zeros};
use super::stage::Stage;

/// Units of a group.
const GROUP: usize = 128;
/// Bytes of 8 rows of a column of chunks.
const EIGHT_ROWS: usize = 1024;

/// Bytes from the first elements `16 * k ..` of a tile of `rows` rows to these.
fn depth(k: usize, rows: usize) -> usize {
    k / 4 * rows * 128 + k % 4 * 32
}

/// A chain of products into one new sum, `$0`: no unit may touch a sum while it is written, so the chain ends here.
fn chain(
    sums: &str,
    adds: bool,
    columns: usize,
    dtype: &str,
    products: impl Iterator<Item = String>,
) -> String {
    let mut code = String::from(
        "{ .reg .pred no, yes; .reg .b64 a, b; setp.ne.b32 no, 0, 0; setp.eq.b32 yes, 0, 0; wgmma.fence.sync.aligned; ",
    );
    for (n, product) in products.enumerate() {
        let (setup, operands) = product.split_once('|').unwrap_or(("", &product));
        let (before, after) = operands.split_once('#').unwrap_or((operands, ""));
        let added = if n == 0 && !adds { "no" } else { "yes" };
        let _ = write!(
            code,
            "{setup} wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} {sums}, {before}, {added}, 1, 1{after}; "
        );
    }
    code + "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; }"
}

/// Products of rows with rows, 16 elements at a time: descriptors `$1` and `$2`.
fn score_chain(tiles: usize, dim: usize, left: usize, right: usize, dtype: &str) -> String {
    let product = |k| {
        let (a, b) = (depth(k, left) / 16, depth(k, right) / 16);
        format!("add.s64 a, $1, {a}; add.s64 b, $2, {b};|a, b#, 0, 0")
    };
    chain("$0", false, 8 * tiles, dtype, (0..dim / 16).map(product))
}

/// Products of weights, `$0` and the next, with rows, 16 of them at a time: the descriptor after the weights. They are added to
/// registers called `name`.
fn value_chain(name: &str, steps: usize, dim: usize, dtype: &str) -> String {
    let product = |k: usize| {
        let rows = 2 * k * EIGHT_ROWS / 16;
        format!("add.s64 b, ${steps}, {rows};|${k}, b#, 1")
    };
    let sums: Vec<_> = (0..dim / 2).map(|n| format!("{name}{n}")).collect();
    let sums = format!("{{{}}}", sums.join(", "));
    chain(&sums, true, dim, dtype, (0..steps).map(product))
}

fn type_name(brain: bool) -> &'static str {
    if brain { "bf16" } else { "f16" }
}

/// How instructions find a tile: where it begins, and bytes from a column of 8 chunks to the next.
#[cube]
fn descriptor(address: u32, #[comptime] columns: usize) -> u64 {
    let rest =
        comptime!(((columns as i64 >> 4) << 16) | ((EIGHT_ROWS as i64 >> 4) << 32) | (1i64 << 62));
    u64::cast_from((address & 0x3FFFFu32) >> 4u32) | u64::new(rest)
}

/// Sums of the 64 rows of this group in `left` with rows `first ..` of `right`, 8 rows a tile.
#[cube]
pub(super) fn scores<E: Float, N: Size>(
    left: &Stage<E, N>,
    right: &Stage<E, N>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] dim: usize,
) -> Array<Pair<f32>> {
    let group = UNIT_POS / comptime!(GROUP as u32);
    let (rows, visited) = comptime!((left.group, right.group));
    let a = descriptor(
        left.address + group * comptime!(8 * EIGHT_ROWS as u32),
        16usize,
    );
    let b = descriptor(right.row_address(first), 16usize);
    let brain = comptime!(left.brain);
    let mut sums = zeros(tiles);
    if comptime!(tiles == 8) {
        let new = score_sums::<Const<32>>(a, b, tiles, dim, rows, visited, brain);
        put::<Const<32>>(&mut sums, new, tiles);
    } else {
        let new = score_sums::<Const<16>>(a, b, tiles, dim, rows, visited, brain);
        put::<Const<16>>(&mut sums, new, tiles);
    }
    sums
}

#[cube]
fn score_sums<S: Size>(
    a: u64,
    b: u64,
    #[comptime] tiles: usize,
    #[comptime] dim: usize,
    #[comptime] rows: usize,
    #[comptime] visited: usize,
    #[comptime] brain: bool,
) -> Vector<f32, S> {
    let sums: Vector<f32, S>;
    gpu_asm!(
        "{code} /* {sums} {a} {b} */",
        code = const score_chain(tiles, dim, rows, visited, type_name(brain)),
        sums = out(_) sums,
        a = in(_) a,
        b = in(_) b,
        options(readonly)
    );
    sums
}

fn declaration(name: &str, count: usize) -> String {
    let mut code = format!(".reg .f32 {name}<{count}>;");
    for n in 0..count {
        let _ = write!(code, " mov.f32 {name}{n}, 0f00000000;");
    }
    code
}

/// Registers for sums, zeros. The compiler of the kernel does not know them: only the assembler does, so that products are added
/// in place.
#[cube]
pub(super) fn declare(#[comptime] name: &'static str, #[comptime] count: usize) {
    gpu_asm!(
        "{code}",
        code = const declaration(name, count),
        options(readonly)
    );
}

fn scaling(name: &str, tiles: usize, half: usize) -> String {
    let mut code = String::new();
    for n in (0..tiles).flat_map(|tile| [4 * tile + 2 * half, 4 * tile + 2 * half + 1]) {
        let _ = write!(code, "mul.f32 {name}{n}, {name}{n}, $0; ");
    }
    code
}

/// Multiplies the sums of the rows of `half`.
#[cube]
pub(super) fn scale(
    #[comptime] name: &'static str,
    #[comptime] tiles: usize,
    #[comptime] half: usize,
    factor: f32,
) {
    // Instructions take the address of a variable, and the value of an expression.
    let factor = factor + f32::new(0.0);
    gpu_asm!(
        "{code} /* {factor} */",
        code = const scaling(name, tiles, half),
        factor = in(_) factor,
        options(readonly)
    );
}

/// Sum `n` of this unit.
#[cube]
pub(super) fn read(#[comptime] name: &'static str, #[comptime] n: usize) -> f32 {
    let sum: f32;
    gpu_asm!(
        "mov.f32 {sum}, {name}{n};",
        sum = out(_) sum,
        name = const name,
        n = const n,
        options(readonly)
    );
    sum
}

/// Adds `weights * right` to the sums, with `weights` the rounded sums of a product over rows `first ..` of `right`.
#[cube]
pub(super) fn accumulate<E: Float, N: Size>(
    #[comptime] name: &'static str,
    weights: &Array<Pair<E>>,
    right: &Stage<E, N>,
    first: usize,
    #[comptime] tiles: usize,
    #[comptime] dim: usize,
) {
    let (visited, brain) = comptime!((right.group, right.brain));
    let rows = descriptor(right.row_address(first), comptime!(visited * 128));
    let left = left_weights(weights, comptime!(tiles / 2));
    let w0 = left[0usize];
    let w1 = left[1usize];
    if comptime!(tiles == 8) {
        let w2 = left[2usize];
        let w3 = left[3usize];
        gpu_asm!(
            "{code} /* {w0} {w1} {w2} {w3} {rows} */",
            code = const value_chain(name, 4, dim, type_name(brain)),
            w0 = in(_) w0,
            w1 = in(_) w1,
            w2 = in(_) w2,
            w3 = in(_) w3,
            rows = in(_) rows,
            options(readonly)
        );
    } else {
        gpu_asm!(
            "{code} /* {w0} {w1} {rows} */",
            code = const value_chain(name, 2, dim, type_name(brain)),
            w0 = in(_) w0,
            w1 = in(_) w1,
            rows = in(_) rows,
            options(readonly)
        );
    }
}

/// Weights of 16 visited rows a step. Instructions take what is read from an array as registers.
#[cube]
fn left_weights<E: Float>(
    weights: &Array<Pair<E>>,
    #[comptime] steps: usize,
) -> Array<Vector<u32, Const<4>>> {
    let mut left = Array::<Vector<u32, Const<4>>>::new(steps);
    #[unroll]
    for step in 0..steps {
        let mut of_step = Vector::<u32, Const<4>>::empty();
        #[unroll]
        for r in 0..4usize {
            of_step.insert(r, u32::reinterpret(weights[comptime!(4 * step + r)]));
        }
        left[step] = of_step;
    }
    left
}

#[cube]
fn put<S: Size>(sums: &mut Array<Pair<f32>>, new: Vector<f32, S>, #[comptime] tiles: usize) {
    #[unroll]
    for n in 0..comptime!(2 * tiles) {
        let mut pair = sums[n];
        pair.insert(0usize, new.extract(comptime!(2 * n)));
        pair.insert(1usize, new.extract(comptime!(2 * n + 1)));
        sums[n] = pair;
    }
}
