//! What each cube of a split tile visits, beside what a cube that has all of it does; and sums. Both run on any device.

use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use super::queries::{begin_turns, end_turn};
use super::size::{ROWS, VISITED};
use super::split::{LANES, UNITS, add, cube_work, cubes_of_tile, sums_of_row};
use crate::cube::columns::ColumnClasses;
use crate::cube::config::Config;
use crate::cube::device_for_tests;
use crate::cube::index::KEY_TILES;
use crate::cube::indexed::Indexed;
use crate::cube::mma::keys::{Group, query_cursor};
use crate::cube::mma::products::Products;
use crate::cube::place::place;
use crate::cube::round::Rounding;
use crate::cube::split::TileVisits;
use crate::cube::tensors::DeviceTensor;
use crate::cube::tile::Tile;
use crate::cube::unit::size::SLICES;
use crate::cube::vector_tensor::tensor_arg;
use crate::cube::walk::{heads_at, key_tile, span};
use crate::{AttentionProblem, AttentionShape, PackedSequences};

/// Words of a visit: 1, or -1 where a set says that none is left; the head, the block and the token of the first row.
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
    let kv_head = (work.tile % kv_heads) as usize;
    let place = place(index, work.tile / kv_heads, KEY_TILES);
    let span = span(index, place.sequence);
    let heads_at = heads_at(index);
    let groups_at = heads_at + heads as usize;
    let own = key_tile(index, groups_at, kv_head, place.number, &span, tile);
    let first_head = kv_head * (heads / kv_heads) as usize;
    let group = Group {
        heads: (heads / kv_heads) as i32,
        records: heads_at + first_head,
        stats: 0usize.runtime(),
        head_rows: 0usize.runtime(),
        all_rows: 0usize.runtime(),
    };
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
        // By turns, until one of both says that none is left, and the other nothing.
        let mut visits = Vec::new();
        loop {
            let (set, other) = [(first, second), (second, first)][visits.len() % 2];
            let (is, visit) = said(set, visits.len() / 2);
            if is != 1 {
                assert_eq!(is, -1, "nobody says that none is left");
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
            let counted = TileVisits::new(&problem, indexed.owned, visited);
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

/// `left` of tiles of keys, in f32.
fn added(
    client: &Client,
    problem: &AttentionProblem,
    config: Config,
    indexed: &Indexed,
    left: &[f32],
    [tiles, cubes]: [usize; 2],
) -> Vec<f32> {
    let shape = problem.shape();
    let rows = shape.num_kv_heads * shape.seq_kv;
    // The gradients of keys, and after them those of values.
    let target = DeviceTensor {
        handle: client.create_from_slice(f32::as_bytes(&vec![
            f32::NAN;
            rows * (shape.head_dim
                + shape.value_dim)
        ])),
        strides: [0, shape.seq_kv * shape.head_dim, shape.head_dim, 1],
    };
    let dtype = ElemType::Float(FloatKind::F32);
    let handle = client.create_from_slice(f32::as_bytes(left));
    unsafe {
        add::launch_unchecked(
            client,
            CubeCount::Static((tiles * cubes_of_tile(&config)) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            cubecl::ir::AddressType::U32,
            LANES,
            BufferArg::from_raw_parts(handle, left.len() / LANES),
            tensor_arg(&target, (LANES, dtype)),
            indexed.arg(),
            0.5,
            rows * shape.head_dim / LANES,
            0,
            shape.seq_kv * shape.value_dim / LANES,
            shape.value_dim / LANES,
            shape.num_heads as u32,
            0,
            shape.num_kv_heads as u32,
            tiles as u32,
            cubes as u32,
            config,
            dtype,
        );
    }
    let bytes = client.read_one(target.handle).unwrap();
    f32::from_bytes(&bytes).to_vec()
}

/// Sums are those of all cubes in their order, dK times the scale; of padding zeros, whatever cubes left.
#[test]
fn sums_of_cubes_are_added() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let pattern = PatternConfig::local_stride(2, 3, 16, 2).build().unwrap();
    let of = AttentionShape {
        head_dim: 24,
        value_dim: 40,
        ..shape(&pattern, 200)
    };
    // 150 tokens of 200 rows.
    let documents = PackedSequences::from_lengths(&[150]).unwrap();
    let problem = AttentionProblem::packed(
        AttentionShape {
            seq_q: 200,
            seq_kv: 200,
            ..of
        },
        &pattern,
        None,
        &documents,
    );
    let problem = problem.unwrap();
    let rows = ROWS;
    let indexed = Indexed::new(&client, &problem, rows).unwrap();
    let config = Config {
        owned: indexed.owned,
        visited: indexed.owned,
        unit: SLICES,
        head_dim: of.head_dim,
        value_dim: of.value_dim,
        rounding: false,
        results: Rounding::Conversion,
        keys: true,
        values: true,
        kept_bands: 0,
        splits: true,
        parts: 1,
        products: Products::Mma,
        slots: 0,
        brain: false,
        instructions: false,
    };
    let (tiles, cubes) = (indexed.tiles.columns * 2, 3);
    let width = sums_of_row(&config);
    assert_eq!(width, 32 + 48);
    let left: Vec<f32> = (0..tiles * cubes * rows * width)
        .map(|n| ((n * 2_654_435_761) % 1_000_003) as f32 / 1000.0)
        .collect();
    let found = added(&client, &problem, config, &indexed, &left, [tiles, cubes]);

    let mut expected = vec![f32::NAN; found.len()];
    for head in 0..2 {
        let classes = ColumnClasses::new(&pattern, head);
        let of_class = |class| {
            let tiles = classes.class_tiles(class, indexed.owned, &(0..200));
            let column = |member| classes.column(class, member as i64) as usize;
            tiles
                .map(|members| members.map(column).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        let columns = (0..classes.classes.len()).flat_map(of_class);
        for (place, columns) in columns.enumerate() {
            let tokens = columns
                .iter()
                .flat_map(|column| column * 16..(column + 1) * 16);
            for (row, token) in tokens.enumerate().filter(|(_, token)| *token < 200) {
                let sum = |element: usize| -> f32 {
                    let of_cube = |cube| {
                        let number = (place * 2 + head) * cubes + cube;
                        left[(number * rows + row) * width + element]
                    };
                    let sum = (0..cubes).map(of_cube).sum();
                    if token < 150 { sum } else { 0.0 }
                };
                let at = (head * 200 + token) * 24;
                (0..24).for_each(|n| expected[at + n] = 0.5 * sum(n));
                let at = 2 * 200 * 24 + (head * 200 + token) * 40;
                (0..40).for_each(|n| expected[at + n] = sum(32 + n));
            }
        }
    }
    assert!(expected.iter().all(|value| value.is_finite()));
    assert_eq!(found, expected);
}
