//! What each cube of a split tile visits, beside what a cube that has all of it does; and sums. Both run on any device.

use std::ops::Range;

use cubecl::client::Client;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::*;
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use super::own_keys_for_tests::own_keys;
use super::queries::{begin_turns, end_turn};
use super::size::{ROWS, VISITED};
use super::split::{LANES, UNITS, add_sums, cube_work, cubes_of_tile, sums_of_row};
use crate::cube::columns::ColumnClasses;
use crate::cube::config::Config;
use crate::cube::device_for_tests;
use crate::cube::indexed::Indexed;
use crate::cube::mma::keys::query_cursor;
use crate::cube::mma::products::Products;
use crate::cube::place::Places;
use crate::cube::round::Rounding;
use crate::cube::split::TileVisits;
use crate::cube::tensors::DeviceTensor;
use crate::cube::tile::Tile;
use crate::cube::unit::size::SLICES;
use crate::cube::vector_tensor::tensor_arg;
use crate::{AttentionProblem, AttentionShape, PackedSequences, SequenceSpan};

/// Words of a visit: 1, or -1 where a set says that none is partial; the head, the block and the token of the first row.
const WORDS: usize = 4;

/// Of the tile of each cube and set of units, its number and the cube's among those that share it, then its visits up to `most`.
#[cube(launch)]
fn visits_of_cubes(
    out: &mut [i32],
    index: &[i32],
    heads: u32,
    kv_heads: u32,
    split_tiles: u32,
    cubes: u32,
    most: u32,
    #[comptime] splits: bool,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    let work = cube_work(CUBE_POS as u32, split_tiles, cubes, splits);
    let keys = own_keys(index, work.tile, heads, kv_heads, tile);
    let (own, span, group) = (keys.own, keys.span, keys.group);
    let set = UNIT_POS;
    let of_set = CUBE_POS * 2usize + set as usize;
    let mut at = of_set * (3 + most as usize * WORDS);
    out[at] = work.tile as i32;
    out[at + 1] = work.first as i32;
    out[at + 2] = work.cubes as i32;
    at += 3;
    let mut cursor = query_cursor();
    let mut more = begin_turns(
        &mut cursor,
        set,
        &work,
        &own,
        index,
        &group,
        &span,
        splits,
        tile,
        visited,
    );
    let mut turn = 0u32.runtime();
    while more && turn < most {
        cursor.advance(&own, index, &group, &span, tile, visited);
        more = cursor.any(&group);
        let rows = cursor.rows(&span, visited);
        out[at] = select(more, 1i32, -1i32);
        out[at + 1] = cursor.head(&group);
        out[at + 2] = rows.blocks.first;
        out[at + 3] = rows.token(index, 0u32.runtime(), visited);
        at += WORDS;
        turn += 1u32;
        let others = end_turn(
            &mut cursor,
            &work,
            &own,
            index,
            &group,
            &span,
            splits,
            tile,
            visited,
        );
        more = more && others;
    }
}

/// Tile, cube, and cubes that share the tile; and the visits of the cube in order.
type CubeVisits = ([i32; 3], Vec<[i32; 3]>);

/// What cubes visit where each of the first tiles of each head is shared by so many.
fn visits(
    client: &Client,
    problem: &AttentionProblem,
    indexed: &Indexed,
    [tiles, cubes]: [usize; 2],
) -> Vec<CubeVisits> {
    let (tile, shape) = (indexed.owned, problem.shape());
    let visited = Tile {
        rows: VISITED,
        ..tile
    };
    let longest = shape.seq_q.max(shape.seq_kv);
    let most = 4 * shape.num_heads * longest.div_ceil(tile.block.min(VISITED)) + 1;
    let split_tiles = tiles * shape.num_kv_heads;
    let count = indexed.tiles.columns * shape.num_kv_heads + split_tiles * (cubes - 1);
    let words = 3 + most * WORDS;
    let out = client.create_from_slice(i32::as_bytes(&vec![0; 2 * count * words]));
    visits_of_cubes::launch(
        client,
        CubeCount::Static(count as u32, 1, 1),
        CubeDim::new_1d(2),
        unsafe { BufferArg::from_raw_parts(out.clone(), 2 * count * words) },
        indexed.arg(),
        shape.num_heads as u32,
        shape.num_kv_heads as u32,
        split_tiles as u32,
        cubes as u32,
        most as u32,
        cubes > 1,
        tile,
        visited,
    );
    let bytes = client.read_one(out).unwrap();
    let read = i32::from_bytes(&bytes);
    let of_cube = |of_sets: &[i32]| {
        let (first, second) = of_sets.split_at(words);
        assert_eq!(first[..3], second[..3]);
        let said = |set: &[i32], turn: usize| {
            let visit = &set[3 + turn * WORDS..][..WORDS];
            (visit[0], [visit[1], visit[2], visit[3]])
        };
        // By turns, until one of both says that none is partial, and the other nothing.
        let mut visits = Vec::new();
        loop {
            let (set, other) = [(first, second), (second, first)][visits.len() % 2];
            let (is, visit) = said(set, visits.len() / 2);
            if is != 1 {
                assert_eq!(is, -1, "nobody says that none is partial");
                assert_eq!(said(other, visits.len().div_ceil(2)).0, 0, "both say it");
                break;
            }
            visits.push(visit);
        }
        ([first[0], first[1], first[2]], visits)
    };
    read.chunks(2 * words).map(of_cube).collect()
}

fn shape(pattern: &Pattern, seq: usize) -> AttentionShape {
    AttentionShape {
        batch: 1,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q: seq,
        seq_kv: seq,
        head_dim: 16,
        value_dim: 16,
    }
}

/// Patterns by classes and by tables, small and large blocks, and sequences of different lengths.
fn problems() -> Vec<AttentionProblem> {
    let mask = BlockMask::from_fn([1, 20, 20], true, |_, i, j| i == j || j % 5 == 0).unwrap();
    let patterns = [
        PatternConfig::local_stride(3, 2, 64, 4).with_num_kv_heads(2),
        PatternConfig::local_stride(2, 5, 16, 2).with_dense_heads(1),
        PatternConfig::local_stride(1, 3, 200, 2),
        PatternConfig::dense(128, 1),
        PatternConfig::new(Rule::Custom(mask), 32, 1),
    ];
    let documents = PackedSequences::from_lengths(&[130, 1, 269, 100]).unwrap();
    let of_pattern = |config: PatternConfig| {
        let pattern = config.build().unwrap();
        [
            AttentionProblem::new(shape(&pattern, 600), &pattern, None, None).unwrap(),
            AttentionProblem::packed(shape(&pattern, 500), &pattern, None, &documents).unwrap(),
        ]
    };
    patterns.into_iter().flat_map(of_pattern).collect()
}

#[test]
fn cubes_share_the_visits_of_a_tile() {
    let Some(client) = device_for_tests() else {
        return;
    };
    for problem in problems() {
        for rows in [64, 128] {
            let indexed = Indexed::new(&client, &problem, rows).unwrap();
            let whole = visits(&client, &problem, &indexed, [0, 1]);
            let tiles = indexed.tiles.columns;
            for split in [[tiles, 2], [tiles, 7], [2, 3]] {
                let context = format!("{problem:?}, {rows} rows, {split:?}");
                let [tiles, cubes] = split;
                let mut of_tiles = vec![0; whole.len()];
                for ([tile, first, step], of_cube) in visits(&client, &problem, &indexed, split) {
                    let is_split = (tile as usize) < tiles * problem.shape().num_kv_heads;
                    let expected = if is_split { cubes } else { 1 };
                    assert_eq!(step as usize, expected, "{context}: tile {tile}");
                    assert_eq!(first as usize, of_tiles[tile as usize], "{context}");
                    of_tiles[tile as usize] += 1;
                    let (_, of_tile) = &whole[tile as usize];
                    let its = of_tile.iter().skip(first as usize).step_by(expected);
                    let its: Vec<_> = its.copied().collect();
                    assert_eq!(of_cube, its, "{context}: tile {tile}, cube {first}");
                }
                for (tile, of_tile) in of_tiles.into_iter().enumerate() {
                    let is_split = tile < tiles * problem.shape().num_kv_heads;
                    assert_eq!(of_tile, if is_split { cubes } else { 1 }, "{context}");
                }
            }
        }
    }
}

/// What a plan is made of is what cubes do.
#[test]
fn visits_are_counted_as_cubes_take_them() {
    let Some(client) = device_for_tests() else {
        return;
    };
    for problem in problems() {
        for rows in [64, 128] {
            let indexed = Indexed::new(&client, &problem, rows).unwrap();
            let visited = Tile {
                rows: VISITED,
                ..indexed.owned
            };
            let counted = TileVisits::new(&problem, &indexed.key_places, indexed.owned, visited);
            assert_eq!(counted.is_none(), indexed.owned.table);
            let kv_heads = problem.shape().num_kv_heads;
            for ([tile, ..], of_cube) in visits(&client, &problem, &indexed, [0, 1]) {
                let (head, place) = (tile as usize % kv_heads, tile as usize / kv_heads);
                if let Some(counted) = &counted {
                    let count = counted.of(head)[place];
                    let context = format!("{problem:?}, {rows} rows: place {place}");
                    assert_eq!(count, of_cube.len() as u64, "{context}");
                }
            }
        }
    }
}

/// What is added: dK, dV or both, of the first tiles of some key/value heads, by so many cubes each.
struct Added {
    wanted: [bool; 2],
    kv_heads: Range<usize>,
    tiles: usize,
    cubes: usize,
}

/// Key dim and value dim.
const DIMS: [usize; 2] = [24, 40];

/// Adds `partial`, in f32, to `[batch, kv_heads, seq_kv, dim]` of dK and, behind it, dV, which were not a number.
fn add(
    client: &Client,
    problem: &AttentionProblem,
    config: Config,
    indexed: &Indexed,
    partial: &[f32],
    added: &Added,
) -> Vec<f32> {
    let shape = problem.shape();
    let rows = shape.batch * shape.num_kv_heads * shape.seq_kv;
    let strides = DIMS.map(|dim| {
        let head = shape.seq_kv * dim;
        [shape.num_kv_heads * head, head, dim, 1]
    });
    let before = vec![f32::NAN; rows * (DIMS[0] + DIMS[1])];
    let target = DeviceTensor {
        handle: client.create_from_slice(f32::as_bytes(&before)),
        strides: strides[0],
    };
    let dtype = ElemType::Float(FloatKind::F32);
    let handle = client.create_from_slice(f32::as_bytes(partial));
    let tiles = added.tiles * added.kv_heads.len();
    let [dv_sequence, dv_head, dv_token, _] = strides[1].map(|stride| stride / LANES);
    unsafe {
        add_sums::launch_unchecked(
            client,
            // A grid may be larger than there are tiles.
            CubeCount::Static((tiles * cubes_of_tile(&config) + 3) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            AddressType::U32,
            LANES,
            BufferArg::from_raw_parts(handle, partial.len() / LANES),
            tensor_arg(&target, (LANES, dtype)),
            indexed.arg(),
            0.5,
            rows * DIMS[0] / LANES,
            dv_sequence,
            dv_head,
            dv_token,
            shape.num_heads as u32,
            added.kv_heads.start as u32,
            added.kv_heads.len() as u32,
            tiles as u32,
            added.cubes as u32,
            config,
            dtype,
        );
    }
    let bytes = client.read_one(target.handle).unwrap();
    f32::from_bytes(&bytes).to_vec()
}

/// Holds what is added to the sums of all cubes in their order, dK times the scale: zeros for padding, whatever cubes left. The rest is as
/// it was.
fn hold_sums(client: &Client, problem: &AttentionProblem, added: &Added) {
    let (shape, pattern) = (*problem.shape(), problem.pattern());
    let indexed = Indexed::new(client, problem, ROWS).unwrap();
    let config = Config {
        owned: indexed.owned,
        visited: indexed.owned,
        unit: SLICES,
        head_dim: DIMS[0],
        value_dim: DIMS[1],
        rounding: false,
        results: Rounding::Conversion,
        keys: added.wanted[0],
        values: added.wanted[1],
        kept_bands: 0,
        splits: true,
        parts: 1,
        products: Products::Mma,
        slots: 0,
        brain: false,
        instructions: false,
    };
    let (heads, cubes) = (added.kv_heads.len(), added.cubes);
    let width = sums_of_row(&config);
    let partial: Vec<f32> = (0..added.tiles * heads * cubes * ROWS * width)
        .map(|n| ((n * 2_654_435_761) % 1_000_003) as f32 / 1000.0)
        .collect();
    let found = add(client, problem, config, &indexed, &partial, added);

    let mut expected = vec![f32::NAN; found.len()];
    let rows_of_all = shape.batch * shape.num_kv_heads * shape.seq_kv;
    for (number, kv_head) in added.kv_heads.clone().enumerate() {
        let classes = ColumnClasses::new(pattern, kv_head);
        let mut tiles = Vec::new();
        for sequence in problem.sequences() {
            let rows = sequence.span.kv_start..sequence.span.kv_start + sequence.kv_rows;
            let of_class = |class| {
                let tiles = classes.class_tiles(class, indexed.owned, &rows);
                let column = |member| classes.column(class, member as i64) as usize;
                let columns = move |members: Range<usize>| members.map(column).collect();
                tiles.map(columns).collect::<Vec<Vec<usize>>>()
            };
            tiles.push(
                (0..classes.classes.len())
                    .flat_map(of_class)
                    .collect::<Vec<_>>(),
            );
        }
        let places = Places::new(&tiles.iter().map(Vec::len).collect::<Vec<_>>());
        let places = places.iter(tiles.len()).take(added.tiles);
        for (place, [sequence, tile]) in places.enumerate() {
            let of = &problem.sequences()[sequence];
            let block = pattern.block_size();
            let tokens = tiles[sequence][tile].iter();
            let tokens = tokens.flat_map(|column| column * block..(column + 1) * block);
            for (row, token) in tokens.enumerate() {
                if !(of.span.kv_start..of.span.kv_start + of.kv_rows).contains(&token) {
                    continue;
                }
                let is_key = token < of.span.kv_start + of.span.kv_len;
                let sum = |element: usize| -> f32 {
                    let of_cube = |cube| {
                        let number = (place * heads + number) * cubes + cube;
                        partial[(number * ROWS + row) * width + element]
                    };
                    if is_key {
                        (0..cubes).map(of_cube).sum()
                    } else {
                        0.0
                    }
                };
                let at = of.kv_row + token - of.span.kv_start;
                let at = (of.item * shape.num_kv_heads + kv_head) * shape.seq_kv + at;
                if added.wanted[0] {
                    (0..DIMS[0]).for_each(|n| expected[at * DIMS[0] + n] = 0.5 * sum(n));
                }
                if added.wanted[1] {
                    let (to, from) = (rows_of_all * DIMS[0] + at * DIMS[1], width - 48);
                    (0..DIMS[1]).for_each(|n| expected[to + n] = sum(from + n));
                }
            }
        }
    }
    let bits = |values: &[f32]| {
        values
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    assert!(expected.iter().any(|value| value.is_finite()));
    let context = format!("{problem:?}, {:?}, {:?}", added.wanted, added.kv_heads);
    assert!(bits(&found) == bits(&expected), "{context}");
}

#[test]
fn sums_of_cubes_are_added() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let pattern = PatternConfig::local_stride(2, 3, 16, 4).with_num_kv_heads(2);
    let pattern = pattern.build().unwrap();
    let of = AttentionShape {
        head_dim: DIMS[0],
        value_dim: DIMS[1],
        ..shape(&pattern, 200)
    };
    let batch = AttentionShape { batch: 2, ..of };
    let span = SequenceSpan {
        q_start: 0,
        q_len: 200,
        kv_start: 21,
        kv_len: 170,
    };
    let documents = PackedSequences::from_lengths(&[90, 1, 60]).unwrap();
    let problems = [
        AttentionProblem::new(of, &pattern, None, None),
        AttentionProblem::new(batch, &pattern, None, Some(vec![span; 2])),
        // Of 200 rows 151 have a token.
        AttentionProblem::packed(of, &pattern, None, &documents),
    ];
    for problem in problems.map(Result::unwrap) {
        let indexed = Indexed::new(&client, &problem, ROWS).unwrap();
        for (wanted, kv_heads, tiles) in [
            ([true, true], 0..2, indexed.tiles.columns),
            ([true, false], 1..2, indexed.tiles.columns),
            ([false, true], 0..2, 2),
            ([true, true], 1..2, 1),
        ] {
            let cubes = 3;
            let added = Added {
                wanted,
                kv_heads,
                tiles,
                cubes,
            };
            hold_sums(&client, &problem, &added);
        }
    }
}
