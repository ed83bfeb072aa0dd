//! Products of four planes together, by `wgmma`: 64 rows of a left operand at a time, while their units do something else.
//!
//! Each plane has the sums of 16 of the rows, and its units hold them as they hold those of products of one plane: in registers
//! that the compiler of the kernel does not know and only the assembler does, so that it cannot move them while they are
//! written. They have names. No unit reads them, and none changes weights that are multiplied, before it has waited.

use std::fmt::Write;

use cubecl::prelude::*;

use super::size::{MOST_HELD, VISITED};
use super::tiles::{DESCRIPTOR, EIGHT_ROWS, Tiles, depth};
use crate::cube::mma::fragments::{Pair, zeros};

/// Units of a group.
pub(in crate::cube) const GROUP: usize = 128;

/// A chain of products into the registers called `name`, which it sets or `adds` to.
fn chain(
    name: &str,
    adds: bool,
    columns: usize,
    dtype: &str,
    products: impl Iterator<Item = String>,
) -> String {
    let sums: Vec<_> = (0..columns / 2).map(|n| format!("{name}{n}")).collect();
    let sums = sums.join(", ");
    let mut code = String::from(
        "{ .reg .pred no, yes; .reg .b32 l; .reg .b64 a, b; setp.ne.b32 no, 0, 0; setp.eq.b32 yes, 0, 0; wgmma.fence.sync.aligned; ",
    );
    for (n, product) in products.enumerate() {
        let (setup, operands) = product.split_once('|').unwrap_or(("", &product));
        let (before, after) = operands.split_once('#').unwrap_or((operands, ""));
        let added = if n == 0 && !adds { "no" } else { "yes" };
        let _ = write!(
            code,
            "{setup} wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} {{{sums}}}, {before}, {added}, 1, 1{after}; "
        );
    }
    code + "wgmma.commit_group.sync.aligned; }"
}

/// Products of rows with rows, 16 elements at a time: descriptors `$0` and `$1`, of tiles of `left` and `right` rows.
fn score_chain(
    name: &str,
    columns: usize,
    dim: usize,
    left: usize,
    right: usize,
    dtype: &str,
) -> String {
    let product = |k| {
        let (a, b) = (depth(k, left) / 16, depth(k, right) / 16);
        format!(
            "add.s32 l, $0, {a}; mov.b64 a, {{l, {DESCRIPTOR}}}; add.s32 l, $1, {b}; mov.b64 b, {{l, {DESCRIPTOR}}};|a, b#, 0, 0"
        )
    };
    chain(name, false, columns, dtype, (0..dim / 16).map(product))
}

/// Most steps of 16 elements of a row that units hold.
const HELD: usize = MOST_HELD / 16;

/// Products of rows that units hold, `$0` and the next, with rows, 16 elements at a time: the descriptor after them, of tiles of `right`
/// rows.
fn held_chain(name: &str, columns: usize, dim: usize, right: usize, dtype: &str) -> String {
    let product = |k| {
        let b = depth(k, right) / 16;
        format!("add.s32 l, ${HELD}, {b}; mov.b64 b, {{l, {DESCRIPTOR}}};|${k}, b#, 0")
    };
    chain(name, false, columns, dtype, (0..dim / 16).map(product))
}

/// Steps of 16 visited rows.
const STEPS: usize = VISITED / 16;

/// Products of weights, those of a step by what the code calls them, with rows, 16 of them at a time, by the descriptor `right`.
fn value_chain(
    name: &str,
    dim: usize,
    dtype: &str,
    right: &str,
    weights: impl Fn(usize) -> String,
) -> String {
    let product = |k: usize| {
        let (rows, left) = (2 * k * EIGHT_ROWS / 16, weights(k));
        format!("add.s32 l, {right}, {rows}; mov.b64 b, {{l, {DESCRIPTOR}}};|{left}, b#, 1")
    };
    chain(name, true, dim, dtype, (0..STEPS).map(product))
}

/// Of weights `$0` and the next, and the descriptor after them.
fn given_chain(name: &str, dim: usize, dtype: &str) -> String {
    value_chain(name, dim, dtype, &format!("${STEPS}"), |k| format!("${k}"))
}

/// Of weights in the registers called `weights`, and the descriptor `$0`.
fn kept_chain(name: &str, weights: &str, dim: usize, dtype: &str) -> String {
    value_chain(name, dim, dtype, "$0", |k| {
        let registers: Vec<_> = (4 * k..4 * k + 4)
            .map(|n| format!("{weights}{n}"))
            .collect();
        format!("{{{}}}", registers.join(", "))
    })
}

fn word_declaration(name: &str, count: usize) -> String {
    let mut code = format!(".reg .b32 {name}<{count}>;");
    for n in 0..count {
        let _ = write!(code, " mov.b32 {name}{n}, 0;");
    }
    code
}

/// Registers for weights, zeros.
#[cube]
pub(super) fn declare_weights(#[comptime] name: &'static str) {
    gpu_asm!(
        "{code}",
        code = const word_declaration(name, 4 * STEPS),
        options(readonly)
    );
}

/// Sets the `n`-th two of the weights called `name`. No product of them may be under way.
#[cube]
pub(super) fn put_weights<E: Float>(
    #[comptime] name: &'static str,
    #[comptime] n: usize,
    weights: Pair<E>,
) {
    let word = u32::reinterpret(weights);
    gpu_asm!(
        "mov.b32 {name}{n}, {word};",
        name = const name,
        n = const n,
        word = in(_) word,
        options(readonly)
    );
}

fn moves(to: &str, from: &str) -> String {
    let mut code = String::new();
    for n in 0..4 * STEPS {
        let _ = write!(code, "mov.b32 {to}{n}, {from}{n}; ");
    }
    code
}

/// Sets the weights called `to` to those called `from`.
#[cube]
pub(super) fn move_weights(#[comptime] to: &'static str, #[comptime] from: &'static str) {
    gpu_asm!("{code}", code = const moves(to, from), options(readonly));
}

/// As [`begin_values`], of the weights called `weights`.
#[cube]
pub(super) fn begin_values_of<E: Float, N: Size>(
    #[comptime] name: &'static str,
    #[comptime] weights: &'static str,
    right: &Tiles<E, N>,
    at: u32,
    #[comptime] brain: bool,
) {
    let dim = comptime!(right.depth);
    let rows = right.columns_at(at);
    gpu_asm!(
        "{code} /* {rows} */",
        code = const kept_chain(name, weights, dim, type_name(brain)),
        rows = in(_) rows,
        options(readonly)
    );
}

fn type_name(brain: bool) -> &'static str {
    if brain { "bf16" } else { "f16" }
}

/// Columns of a product from which on the assembler lets units change how many registers they have.
const WIDE: usize = 128;

/// A product of [`WIDE`] columns where the grid is larger than grids can be.
fn impossible_product() -> String {
    let sums: Vec<_> = (0..WIDE / 2).map(|n| format!("w{n}")).collect();
    let sums = sums.join(", ");
    format!(
        "{{ .reg .f32 w<{}>; .reg .b64 d; .reg .b32 z; .reg .pred never; mov.u32 z, %nctaid.z; setp.gt.u32 never, z, 65535; @!never bra past; mov.b64 d, 0; wgmma.fence.sync.aligned; wgmma.mma_async.sync.aligned.m64n{WIDE}k16.f32.bf16.bf16 {{{sums}}}, d, d, never, 1, 1, 0, 0; wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; past: }}",
        WIDE / 2
    )
}

/// Lets units change how many registers they have in a kernel whose products have at most `columns` columns.
///
/// CubeCL does not write how many cubes a processor has at least, and without that `ptxas` ignores such changes (C7508), spills, and
/// moves every descriptor from ordinary to uniform registers: unless there is a wide product somewhere, be it where no unit
/// ever comes.
#[cube]
pub(super) fn let_registers_change(#[comptime] columns: usize) {
    if comptime!(columns < WIDE) {
        gpu_asm!(
            "{code}",
            code = const impossible_product(),
            options(readonly)
        );
    }
}

fn zeroing(name: &str, count: usize) -> String {
    let mut code = String::new();
    for n in 0..count {
        let _ = write!(code, " mov.f32 {name}{n}, 0f00000000;");
    }
    code
}

fn declaration(name: &str, count: usize) -> String {
    format!(".reg .f32 {name}<{count}>;{}", zeroing(name, count))
}

/// Registers for sums with `columns` columns, zeros.
#[cube]
pub(super) fn declare(#[comptime] name: &'static str, #[comptime] columns: usize) {
    gpu_asm!(
        "{code}",
        code = const declaration(name, columns / 2),
        options(readonly)
    );
}

/// Makes sums zeros.
#[cube]
pub(super) fn clear(#[comptime] name: &'static str, #[comptime] columns: usize) {
    gpu_asm!(
        "{code}",
        code = const zeroing(name, columns / 2),
        options(readonly)
    );
}

/// Begins to multiply the 64 rows from `own` on of tile `of` of `left` with all rows of tile `at` of `right`: sums of rows called
/// `name`.
#[cube]
pub(super) fn begin_scores<E: Float, N: Size>(
    #[comptime] name: &'static str,
    left: &Tiles<E, N>,
    of: u32,
    own: u32,
    right: &Tiles<E, N>,
    at: u32,
    #[comptime] brain: bool,
) {
    let (rows, visited, dim) = comptime!((left.rows, right.rows, left.depth));
    let a = left.rows_at(of, own);
    let b = right.rows_at(at, 0u32.runtime());
    gpu_asm!(
        "{code} /* {a} {b} */",
        code = const score_chain(name, visited, dim, rows, visited, type_name(brain)),
        a = in(_) a,
        b = in(_) b,
        options(readonly)
    );
}

/// As [`begin_scores`], of the rows that this group holds.
#[cube]
pub(super) fn begin_scores_of<E: Float, N: Size>(
    #[comptime] name: &'static str,
    held: &Array<Vector<u32, Const<4>>>,
    right: &Tiles<E, N>,
    at: u32,
    #[comptime] brain: bool,
) {
    let (visited, dim) = comptime!((right.rows, right.depth));
    // Steps that there are not stand for the last.
    let last = comptime!(dim / 16 - 1);
    let q0 = held[0usize];
    let q1 = held[comptime!(last.min(1))];
    let q2 = held[comptime!(last.min(2))];
    let q3 = held[comptime!(last.min(3))];
    let q4 = held[comptime!(last.min(4))];
    let q5 = held[comptime!(last.min(5))];
    let q6 = held[comptime!(last.min(6))];
    let q7 = held[comptime!(last.min(7))];
    let b = right.rows_at(at, 0u32.runtime());
    gpu_asm!(
        "{code} /* {q0} {q1} {q2} {q3} {q4} {q5} {q6} {q7} {b} */",
        code = const held_chain(name, visited, dim, visited, type_name(brain)),
        q0 = in(_) q0,
        q1 = in(_) q1,
        q2 = in(_) q2,
        q3 = in(_) q3,
        q4 = in(_) q4,
        q5 = in(_) q5,
        q6 = in(_) q6,
        q7 = in(_) q7,
        b = in(_) b,
        options(readonly)
    );
}

/// Begins to add `weights * right` to the sums called `name`: `weights` of all rows of tile `at`.
#[cube]
pub(super) fn begin_values<E: Float, N: Size>(
    #[comptime] name: &'static str,
    weights: &Array<Pair<E>>,
    right: &Tiles<E, N>,
    at: u32,
    #[comptime] brain: bool,
) {
    let dim = comptime!(right.depth);
    let rows = right.columns_at(at);
    let left = left_weights(weights);
    let w0 = left[0usize];
    let w1 = left[1usize];
    let w2 = left[2usize];
    let w3 = left[3usize];
    gpu_asm!(
        "{code} /* {w0} {w1} {w2} {w3} {rows} */",
        code = const given_chain(name, dim, type_name(brain)),
        w0 = in(_) w0,
        w1 = in(_) w1,
        w2 = in(_) w2,
        w3 = in(_) w3,
        rows = in(_) rows,
        options(readonly)
    );
}

/// Waits for all chains but the last `but`.
#[cube]
pub(super) fn products_done(#[comptime] but: usize) {
    gpu_asm!(
        "wgmma.wait_group.sync.aligned {but};",
        but = const but,
        options(readonly)
    );
}

/// Weights of 16 visited rows a step. Instructions take what is read from an array as registers.
#[cube]
fn left_weights<E: Float>(weights: &Array<Pair<E>>) -> Array<Vector<u32, Const<4>>> {
    let mut left = Array::<Vector<u32, Const<4>>>::new(STEPS);
    #[unroll]
    for step in 0..STEPS {
        let mut of_step = Vector::<u32, Const<4>>::empty();
        #[unroll]
        for r in 0..4usize {
            of_step.insert(r, u32::reinterpret(weights[comptime!(4 * step + r)]));
        }
        left[step] = of_step;
    }
    left
}

fn scaling(name: &str, columns: usize, half: usize) -> String {
    let mut code = String::new();
    for n in (0..columns / 2).filter(|n| n % 4 / 2 == half) {
        let _ = write!(code, "mul.f32 {name}{n}, {name}{n}, $0; ");
    }
    code
}

/// Multiplies the sums of the rows of `half`.
#[cube]
pub(super) fn scale(
    #[comptime] name: &'static str,
    #[comptime] columns: usize,
    #[comptime] half: usize,
    factor: f32,
) {
    // Instructions take the address of a variable, and the value of an expression.
    let factor = factor + f32::new(0.0);
    gpu_asm!(
        "{code} /* {factor} */",
        code = const scaling(name, columns, half),
        factor = in(_) factor,
        options(readonly)
    );
}

/// The sums.
#[cube]
pub(super) fn take(#[comptime] name: &'static str, #[comptime] columns: usize) -> Array<Pair<f32>> {
    let mut pairs = zeros(comptime!(columns / 8));
    #[unroll]
    for n in 0..comptime!(columns / 4) {
        let mut pair = pairs[n];
        #[unroll]
        for e in 0..2usize {
            pair.insert(e, read(name, comptime!(2 * n + e)));
        }
        pairs[n] = pair;
    }
    pairs
}

/// Sum `n` of this unit.
#[cube]
fn read(#[comptime] name: &'static str, #[comptime] n: usize) -> f32 {
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
