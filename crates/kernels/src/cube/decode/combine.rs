//! Combines what was computed over the parts of each list, in the order of the parts.

use cubecl::prelude::*;

use super::partials::{STATS, record_at};
use super::sizes::Sizes;
use super::table::{item_at, page_list};
use super::tile::{GroupRows, Row, part_entries};
use crate::cube::first_launch::Class;
use crate::cube::round::{Rounding, rounded};
use crate::cube::rows::head_rows;
use crate::cube::softmax::LOWEST;
use crate::cube::vector_tensor::VectorTensor;

/// Elements of a vector.
pub(in crate::cube) const LANES: usize = 4;
/// Units of a cube, at most.
const UNITS: usize = 256;
/// Units that share a column of a row, at most: each combines every so many of the parts.
const SHARERS: usize = 8;
/// Parts that a unit reads at a time.
const AHEAD: usize = 8;

/// Units that share a column of a row where there are `splits` parts: as few as read all of them at a time. A power of two, which leaves
/// few kernels.
pub(in crate::cube) fn sharers(splits: usize) -> usize {
    splits.div_ceil(AHEAD).next_power_of_two().min(SHARERS)
}

/// Units of a cube across a row, and those that share each of its columns.
pub(in crate::cube) fn layout(value_dim: usize, sharers: usize) -> (usize, usize) {
    let across = value_dim / LANES;
    (across, sharers.min(UNITS / across))
}

/// What the kernel is compiled for where there are `splits` parts.
pub(super) fn combine_class(value_dim: usize, splits: usize, results: Rounding) -> Class {
    Class::Combine {
        value_dim,
        sharers: sharers(splits),
        results,
    }
}

/// Bytes of shared memory.
pub(in crate::cube) fn shared_bytes(value_dim: usize, sharers: usize) -> usize {
    let (across, down) = layout(value_dim, sharers);
    (across + 1) * down * LANES * 4
}

/// A unit's share of a row.
#[derive(CubeType)]
struct Share<N: Size> {
    values: Vector<f32, N>,
    maximum: f32,
    sum: f32,
    whole: f32,
}

#[cube]
impl<N: Size> Share<N> {
    /// Adds values and what follows them in a record. Nothing of a part in which the row attends nothing: its values may be
    /// anything.
    fn add(&mut self, values: Vector<f32, N>, stats: Vector<f32, N>) {
        let (maximum, sum, whole) = (
            stats.extract(0usize),
            stats.extract(1usize),
            stats.extract(2usize),
        );
        if sum != 0.0f32 {
            let top = max(self.maximum, maximum);
            let kept = (self.maximum - top).exp();
            let factor = (maximum - top).exp();
            self.values = self.values * Vector::new(kept) + values * Vector::new(factor);
            self.sum = self.sum * kept + sum * factor;
            self.whole = self.whole * kept + whole * factor;
            self.maximum = top;
        }
    }
}

/// `out` and `lse` of every row of an item. Grid: query heads, items, tokens `token, token + tokens, ..`; what is beyond those
/// does work of theirs again.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn combine<E: Float, N: Size>(
    partials: &[Vector<f32, N>],
    out: &mut VectorTensor<E, N>,
    lse: &mut [f32],
    table: &[i32],
    minus_infinity: f32,
    sizes: Sizes,
    tokens: u32,
    #[comptime] value_dim: usize,
    #[comptime] sharers: usize,
    #[comptime] rounding: Rounding,
    #[define(E)] _dtype: ElemType,
) {
    let (across, down) = comptime!(layout(value_dim, sharers));
    let cube = CUBE_POS as u32;
    let heads = sizes.kv_heads * sizes.group;
    let head = cube % heads;
    let number = cube / heads % sizes.items;
    let kv_head = head / sizes.group;
    let rows = GroupRows {
        item: item_at(table, number as usize),
        number: number as usize,
        kv_head: kv_head as usize,
        group: sizes.group,
    };
    let list = (number * sizes.kv_heads + kv_head) as usize;
    let list = page_list(table, list, &sizes.sections);
    let each = part_entries(list.count, sizes.splits);
    let parts = (list.count + each - 1) / max(each, 1i32);

    let (column, share) = (UNIT_POS as usize % across, UNIT_POS as usize / across);
    let mut values = Shared::<[Vector<f32, N>]>::new_slice(comptime!(across * down));
    let mut stats = Shared::<[Vector<f32, N>]>::new_slice(down);
    let out_rows = head_rows::<E, N>(&*out, 0usize, head as usize, 0i32.runtime());

    let mut token = i32::cast_from(cube / heads / sizes.items);
    while token < rows.tokens() {
        let row = Row {
            exists: true.runtime(),
            token,
            head: head as usize,
        };
        let mut own = Share::<N> {
            values: Vector::new(0.0f32),
            maximum: f32::new(LOWEST),
            sum: f32::new(0.0),
            whole: f32::new(0.0),
        };
        let turns =
            (parts + comptime!((AHEAD * down) as i32 - 1)) / comptime!((AHEAD * down) as i32);
        for turn in 0..turns {
            let mut ahead = Array::<Vector<f32, N>>::new(AHEAD);
            let mut ahead_stats = Array::<Vector<f32, N>>::new(AHEAD);
            #[unroll]
            for n in 0..AHEAD {
                let part = (turn * comptime!(AHEAD as i32) + comptime!(n as i32))
                    * comptime!(down as i32)
                    + i32::cast_from(share);
                ahead[n] = Vector::new(0.0f32);
                ahead_stats[n] = Vector::new(0.0f32);
                if part < parts {
                    let part = usize::cast_from(part);
                    let at = record_at(&sizes, part, &rows, &row, value_dim) / LANES;
                    ahead[n] = partials[at + column];
                    ahead_stats[n] = partials[at + across];
                }
            }
            #[unroll]
            for n in 0..AHEAD {
                own.add(ahead[n], ahead_stats[n]);
            }
        }

        values[UNIT_POS as usize] = own.values;
        if column == 0usize {
            let mut of_share = Vector::<f32, N>::new(0.0f32);
            of_share.insert(0usize, own.maximum);
            of_share.insert(1usize, own.sum);
            of_share.insert(2usize, own.whole);
            stats[share] = of_share;
        }
        sync_cube();
        if share == 0usize {
            for other in 1..down {
                own.add(values[other * across + column], stats[other]);
            }
            let empty = own.sum == 0.0f32;
            let part = f32::new(1.0) / own.whole;
            let mut result = own.values * Vector::new(part);
            #[unroll]
            for lane in 0..LANES {
                result.insert(lane, select(empty, f32::new(0.0), result.extract(lane)));
            }
            let query = rows.item.row + token;
            out.vectors[out_rows.at(query) + column] = rounded::<E, N>(result, LANES, rounding);
            if column == 0usize {
                let of_row = select(empty, minus_infinity, own.maximum + own.sum.ln());
                lse[usize::cast_from(query) * heads as usize + head as usize] = of_row;
            }
        }
        sync_cube();
        token += i32::cast_from(tokens);
    }
}

/// Numbers of records are vectors.
const _: () = assert!(STATS == LANES);

#[cfg(test)]
mod tests {
    use super::{combine_class, sharers};
    use crate::cube::round::Rounding;

    /// As many parts as one more unit shares are another kernel, whose first launch is looked at too.
    #[test]
    fn parts_that_other_kernels_combine_are_of_other_classes() {
        let class = |splits| combine_class(128, splits, Rounding::Conversion);
        for splits in [1, 2, 8, 9, 16, 17, 33, 64, 512] {
            for other in [1, 8, 9, 12, 16, 20, 40, 500] {
                let same = sharers(splits) == sharers(other);
                assert_eq!(class(splits) == class(other), same, "{splits} and {other}");
            }
        }
        let of_64 = combine_class(64, 1, Rounding::Conversion);
        assert_ne!(class(1), of_64);
    }
}
