//! Tiles of keys whose visits several cubes share, each of which leaves its sums for [`add_sums`].
//!
//! The cubes of a tile take its visits by turns. Sums are added in the order of the cubes, so that results are the same each time.

use cubecl::prelude::*;

use super::work::first_row;
use crate::cube::config::Config;
use crate::cube::index::KEY_TILES;
use crate::cube::mma::fragments::Pair;
use crate::cube::mma::stage::padded;
use crate::cube::place::place;
use crate::cube::rows::{HeadRows, head_keys};
use crate::cube::vector_tensor::VectorTensor;
use crate::cube::walk::{NONE, heads_at, key_tile, span};

/// Units of a cube of [`add_sums`].
pub(in crate::cube) const UNITS: usize = 256;
/// Elements of its vectors.
pub(in crate::cube) const LANES: usize = 4;

/// What a cube works on.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct CubeWork {
    /// The tile, counted in the grid without cubes that share one.
    pub(super) tile: u32,
    /// The first of the tile's visits that this cube takes.
    pub(super) first: u32,
    /// Cubes that share the tile, and visits from one of a cube to its next.
    pub(super) cubes: u32,
}

/// The work of cube `cube` of a grid whose first `split_tiles` tiles are shared, where `splits`, by `cubes` cubes each.
#[cube]
pub(super) fn cube_work(
    cube: u32,
    split_tiles: u32,
    cubes: u32,
    #[comptime] splits: bool,
) -> CubeWork {
    let mut tile = cube;
    let mut first = 0u32.runtime();
    let mut of_tile = 1u32.runtime();
    if comptime!(splits) {
        let sharing = split_tiles * cubes;
        if cube < sharing {
            tile = cube / cubes;
            first = cube % cubes;
            of_tile = cubes;
        } else {
            tile = cube - sharing + split_tiles;
        }
    }
    CubeWork {
        tile,
        first,
        cubes: of_tile,
    }
}

/// Elements of a row of both sums, or of those that are wanted, with padding.
pub(in crate::cube) fn sums_of_row(config: &Config) -> usize {
    let [keys, values] = wanted(config).map(padded);
    keys + values
}

/// Elements of the rows of dK and dV, 0 for what is not wanted.
fn wanted(config: &Config) -> [usize; 2] {
    [
        if config.keys { config.head_dim } else { 0 },
        if config.values { config.value_dim } else { 0 },
    ]
}

/// Leaves the sums of a unit that works on visits, `columns` tiles of 8 columns from column `from` of the rows on.
#[cube]
pub(super) fn put_partial(
    partial: &mut [Pair<f32>],
    work: &CubeWork,
    sums: &Array<Pair<f32>>,
    unit: usize,
    #[comptime] columns: usize,
    #[comptime] from: usize,
    #[comptime] config: Config,
) {
    let width = comptime!(sums_of_row(&config) / 2);
    let of_cube = (work.tile * work.cubes + work.first) as usize * comptime!(config.owned.rows);
    let at = (of_cube + first_row(unit)) * width + comptime!(from / 2) + unit % 4usize;
    #[unroll]
    for column in 0..columns {
        #[unroll]
        for half in 0..2usize {
            partial[at + comptime!(8 * half * width + 4 * column)] =
                sums[comptime!(2 * column + half)];
        }
    }
}

/// Cubes of [`add_sums`] for each tile.
pub(in crate::cube) fn cubes_of_tile(config: &Config) -> usize {
    (config.owned.rows * sums_of_row(config) / LANES).div_ceil(UNITS)
}

/// dK and dV of tiles that `cubes` cubes share, by the sums that these left. Grid: [`cubes_of_tile`] for each of the first tiles of `kv_heads_now`
/// heads from `first_kv_head` on. Strides of dV, and where it begins, are in vectors of [`LANES`] elements.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub(in crate::cube) fn add_sums<E: Float, N: Size>(
    partial: &[Vector<f32, N>],
    d_keys: &mut VectorTensor<E, N>,
    index: &[i32],
    scale: f32,
    dv_at: usize,
    dv_sequence: usize,
    dv_head: usize,
    dv_token: usize,
    heads: u32,
    first_kv_head: u32,
    kv_heads_now: u32,
    split_tiles: u32,
    cubes: u32,
    #[comptime] config: Config,
    #[define(E)] _dtype: ElemType,
) {
    let tile = comptime!(config.owned);
    let of_tile = comptime!(cubes_of_tile(&config));
    let width = comptime!(sums_of_row(&config) / LANES);
    let [keys, values] = comptime!(wanted(&config).map(|dim| dim / LANES));
    let values_from = comptime!(padded(wanted(&config)[0]) / LANES);
    let number = (CUBE_POS / of_tile) as u32;
    let at = CUBE_POS % of_tile * UNITS + UNIT_POS as usize;
    let (row, vector) = (at / width, at % width);
    let is_key = vector < keys;
    let is_value = vector >= values_from && vector < values_from + values;
    if number < split_tiles && row < comptime!(tile.rows) && (is_key || is_value) {
        let kv_head = (first_kv_head + number % kv_heads_now) as usize;
        let place = place(index, number / kv_heads_now, KEY_TILES);
        let span = span(index, place.sequence);
        let groups_at = heads_at(index) + heads as usize;
        let own = key_tile(index, groups_at, kv_head, place.number, &span, tile);
        let token = own.token(index, row as u32, span.kv_start, span.kv_rows_end, tile);
        if token != NONE {
            let mut sum = Vector::<f32, N>::new(0.0f32);
            // Rows of padding are zeros.
            if token < span.kv_end {
                let first = number * cubes;
                for cube in first..first + cubes {
                    sum += partial[(cube as usize * comptime!(tile.rows) + row) * width + vector];
                }
                sum *= Vector::new(select(is_key, scale, f32::new(1.0)));
            }
            let dk_rows = head_keys::<E, N>(&*d_keys, &span, kv_head);
            let dv_rows = HeadRows {
                base: dv_at + span.item * dv_sequence + kv_head * dv_head,
                stride: dv_token,
                start: span.kv_zero,
            };
            let of_keys = dk_rows.at(token) + vector;
            let of_values = dv_rows.at(token) + vector - values_from;
            d_keys.vectors[select(is_key, of_keys, of_values)] = Vector::cast_from(sum);
        }
    }
}
