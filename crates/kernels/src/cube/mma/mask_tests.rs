//! Masks of ranges beside those that look at every token.

use cubecl::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::mask::{attended, attended_in_a_row};
use super::products::{Products, own_row};
use crate::cube::device_for_tests;
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, NONE};

/// Units of four planes, which own 64 rows.
const UNITS: usize = 128;
/// Visited rows.
const ROWS: usize = 64;

/// The bits of both, for owned tokens in a row from `own` on, of which those from `end` on are none, and visited ones from `first` on.
#[cube(launch)]
fn both(
    out: &mut [u32],
    index: &[i32],
    own: i32,
    end: i32,
    first: i32,
    min_distance: i32,
    max_distance: i32,
    causal: u32,
    #[comptime] queries: bool,
    #[comptime] tile: Tile,
) {
    let distances = Distances {
        min: min_distance,
        max: max_distance,
        stride: 1i32.runtime(),
        residue: 0i32.runtime(),
        causal: causal != 0u32,
        exact: true.runtime(),
    };
    let mut visited = Shared::<[i32]>::new_slice(ROWS);
    if UNIT_POS < comptime!(ROWS as u32) {
        visited[UNIT_POS as usize] = first + i32::cast_from(UNIT_POS);
    }
    sync_cube();
    let mut owned = Array::<i32>::new(2usize);
    #[unroll]
    for row in 0..2usize {
        let token = own + i32::cast_from(own_row(row, 1usize, Products::Mma));
        owned[row] = select(token < end, token, NONE);
    }
    let of_ranges = attended_in_a_row(&distances, &owned, first, ROWS, queries, tile);
    // Where distances say it all no record is looked up.
    let of_tokens = attended(
        &distances,
        index,
        0usize.runtime(),
        &owned,
        &visited,
        0usize.runtime(),
        comptime!(ROWS / 8),
        1usize,
        queries,
        tile,
        Products::Mma,
    );
    out[UNIT_POS as usize * 2] = of_ranges[0usize];
    out[UNIT_POS as usize * 2 + 1] = of_tokens[0usize];
}

#[test]
fn ranges_need_no_token() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let rng = &mut StdRng::seed_from_u64(5);
    let index = client.create_from_slice(i32::as_bytes(&[0]));
    let out = client.empty(2 * UNITS * size_of::<u32>());
    let (mut some, mut part) = (0, 0);
    for number in 0..300 {
        let block = [16, 32, 48, 64, 200][number % 5];
        let tile = Tile {
            rows: 192,
            block,
            table: false,
        };
        let far = rng.random_bool(0.1).then_some((1 << 30) - 1000);
        let own = far.unwrap_or(0) + rng.random_range(0..600);
        let first = (own + rng.random_range(-400..200)).max(0);
        let min = rng.random_range(-4..6);
        let max = if rng.random_bool(0.3) {
            1 << 30
        } else {
            min + rng.random_range(0..8)
        };
        let arguments = (own, own + rng.random_range(0..80), first, min, max);
        let (own, end, first, min, max) = arguments;
        let causal = rng.random_bool(0.7);
        for queries in [true, false] {
            both::launch(
                &client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                unsafe { BufferArg::from_raw_parts(out.clone(), 2 * UNITS) },
                unsafe { BufferArg::from_raw_parts(index.clone(), 1) },
                own,
                end,
                first,
                min,
                max,
                u32::from(causal),
                queries,
                tile,
            );
            let bytes = client.read_one(out.clone()).unwrap();
            for (unit, bits) in u32::from_bytes(&bytes).chunks(2).enumerate() {
                assert_eq!(
                    bits[0], bits[1],
                    "unit {unit}: block {block}, {arguments:?}, causal {causal}, queries {queries}"
                );
                some += usize::from(bits[0] != 0);
                part += usize::from(bits[0] != 0 && bits[0] != u32::MAX);
            }
        }
    }
    assert!(some > 1000 && part > 1000, "{some} {part}");
}
