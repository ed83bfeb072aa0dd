//! Where dS is kept, beside what dQ visits and what the pattern says of each pair. The schedule alone runs here, on any device.

use std::collections::{HashMap, HashSet};

use cubecl::client::Client;
use cubecl::prelude::*;
use s2_attention_pattern::{Pattern, PatternConfig, Rule};

use super::kept::{NOWHERE, chunks_of_visit, first_visit, keeping};
use super::own_keys_for_tests::own_keys;
use super::size::{FILLERS, ROWS, VISITED};
use crate::cube::device_for_tests;
use crate::cube::indexed::Indexed;
use crate::cube::kept::{CHUNK, Kept};
use crate::cube::mma::keys::query_cursor;
use crate::cube::mma::queries::key_cursor;
use crate::cube::tile::Tile;
use crate::cube::walk::query_tile;
use crate::{AttentionProblem, AttentionShape, PackedSequences, SequenceSpan};

/// Units of a cube.
const UNITS: usize = FILLERS;
/// Words of a visit of keys: whether there is one, its head, and of each unit a chunk and the first query and key of it.
const WORDS: usize = 2 + 3 * 32;
/// Words of a visit of queries: whether there is one, and the positions of its keys.
const WORDS_OF_KEYS: usize = 1 + VISITED;

/// Of the visits of a key tile, up to `most`: the chunks.
#[cube(launch)]
fn chunks_kept(
    out: &mut [i32],
    index: &[i32],
    starts: &[u32],
    tiles: u32,
    heads: u32,
    kv_heads: u32,
    most: u32,
    #[comptime] bands: usize,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    let keys = own_keys(index, CUBE_POS as u32, heads, kv_heads, tile);
    let (own, span, group) = (keys.own, keys.span, keys.group);
    let first_head = keys.first_head;
    let mut keeping = keeping(
        &own,
        index,
        starts,
        keys.sequence,
        &span,
        tiles,
        0u32.runtime(),
        bands,
        tile,
    );
    let mut cursor = query_cursor();
    let mut at = CUBE_POS * most as usize * WORDS;
    for _ in 0..most {
        cursor.advance(&own, index, &group, &span, tile, visited);
        let rows = cursor.rows(&span, visited);
        let head = cursor.head(&group) as usize;
        let any = cursor.describe(
            &group,
            &cursor.reach(index, &span, visited),
            &crate::cube::walk::key_reach(&own, index, tile),
            tile,
        );
        out[at] = i32::cast_from(any.any);
        out[at + 1] = (first_head + head) as i32;
        let first = comptime!((FILLERS - 32) as u32);
        if any.any
            && UNIT_POS >= first
            && UNIT_POS < first + comptime!(chunks_of_visit(tile.rows) as u32)
        {
            let unit = UNIT_POS - first;
            let chunk = keeping.chunk(
                starts,
                index,
                first_head + head,
                group.records + head,
                &rows,
                &any.distances,
                &span,
                tile,
                visited,
            );
            let of_unit = at + 2 + 3 * unit as usize;
            let across = comptime!((VISITED / CHUNK) as u32);
            let few = comptime!(CHUNK as u32);
            out[of_unit] = i32::cast_from(chunk);
            out[of_unit + 1] = rows.position(index, unit % across * few, visited);
            out[of_unit + 2] = own.position(index, unit / across * few, tile);
        }
        at += WORDS;
    }
}

/// Of a query tile the head, the first visit, whether there is one, the position of the first row, and the visits up to `most`.
#[cube(launch)]
fn visits_by_place(
    out: &mut [i32],
    index: &[i32],
    starts: &[u32],
    tiles: u32,
    heads: u32,
    kv_heads: u32,
    most: u32,
    #[comptime] bands: usize,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    let own = query_tile(index, CUBE_POS as u32, heads, kv_heads, tile);
    let mut cursor = key_cursor();
    let mut at = CUBE_POS * (4 + most as usize * WORDS_OF_KEYS);
    let position = own.rows.blocks.first * comptime!(tile.block as i32) + own.rows.offset;
    out[at] = own.head as i32;
    if own.walk.bands > 0 {
        out[at + 1] = i32::cast_from(first_visit(
            starts,
            index,
            own.sequence,
            tiles,
            own.head,
            &own.span,
            max(position, own.span.q_start),
            bands,
            tile,
        ));
    }
    out[at + 2] = own.walk.bands;
    out[at + 3] = position;
    at += 4;
    for _ in 0..most {
        cursor.advance(index, &own.walk, &own.span, tile, visited);
        let reach = cursor.reach(&own, index, visited);
        let visit = cursor.describe(&own, index, &reach, tile, visited);
        out[at] = i32::cast_from(visit.any);
        if UNIT_POS < comptime!(VISITED as u32) {
            out[at + 1 + UNIT_POS as usize] = cursor.token(&own, index, UNIT_POS, visited);
        }
        at += WORDS_OF_KEYS;
    }
}

/// Holds the chunks of every visit to the pairs that attend, and to the visits of dQ. The chunks.
fn hold(client: &Client, problem: &AttentionProblem, rows: usize) -> usize {
    let indexed = Indexed::new(client, problem, rows).unwrap();
    let (tile, shape, pattern) = (indexed.owned, problem.shape(), problem.pattern());
    let visited = Tile {
        rows: VISITED,
        ..tile
    };
    let kept = Kept::new(client, problem, tile, visited).expect("dS is kept");
    let (heads, kv_heads) = (shape.num_heads, shape.num_kv_heads);
    let longest = shape.seq_q.max(shape.seq_kv);
    let most = 4 * heads * longest.div_ceil(tile.block.min(VISITED));

    let read = |cubes: usize, words: usize, of_keys: bool| {
        let out = client.create_from_slice(i32::as_bytes(&vec![0; cubes * words]));
        let launch = if of_keys {
            chunks_kept::launch
        } else {
            visits_by_place::launch
        };
        launch(
            client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            unsafe { BufferArg::from_raw_parts(out.clone(), cubes * words) },
            indexed.arg(),
            kept.arg(),
            kept.tiles as u32,
            heads as u32,
            kv_heads as u32,
            most as u32,
            kept.bands,
            tile,
            visited,
        );
        let bytes = client.read_one(out).unwrap();
        i32::from_bytes(&bytes).to_vec()
    };

    // The chunks of dQ's visits: head, first query and keys.
    let words = 4 + most * WORDS_OF_KEYS;
    let mut of_queries: HashMap<u32, (usize, i32, Vec<i32>)> = HashMap::new();
    let mut visits_of_all = 0;
    for of_tile in read(indexed.tiles.rows * heads, words, false).chunks(words) {
        if of_tile[2] == 0 {
            continue;
        }
        let visits = of_tile[4..].chunks(WORDS_OF_KEYS);
        for (number, visit) in visits.take_while(|visit| visit[0] != 0).enumerate() {
            visits_of_all += 1;
            for row in (0..rows).step_by(CHUNK) {
                for (part, keys) in visit[1..].chunks(CHUNK).enumerate() {
                    let visit = of_tile[1] as usize + number;
                    let group = visit * rows / ROWS + row / ROWS;
                    let chunk = (group * VISITED / CHUNK + part) * ROWS / CHUNK;
                    let chunk = (chunk + row % ROWS / CHUNK) as u32;
                    let query = of_tile[3] + row as i32;
                    let what = (of_tile[0] as usize, query, keys.to_vec());
                    let before = of_queries.insert(chunk, what);
                    assert_eq!(before, None, "{problem:?}: chunk {chunk}");
                }
            }
        }
    }
    assert_eq!(
        kept.bytes(&(0..heads)),
        visits_of_all * rows * VISITED * 2,
        "{problem:?}, {rows} rows: visits"
    );

    let mut chunks = HashSet::new();
    let mut found = HashSet::new();
    let words = most * WORDS;
    for of_tile in read(indexed.tiles.columns * kv_heads, words, true).chunks(words) {
        for visit in of_tile.chunks(WORDS).take_while(|visit| visit[0] != 0) {
            for of_unit in visit[2..].chunks(3).take(chunks_of_visit(rows)) {
                let &[chunk, query, key] = of_unit else {
                    unreachable!()
                };
                let chunk = chunk as u32;
                if chunk == NOWHERE {
                    continue;
                }
                assert!(chunks.insert(chunk), "{problem:?}: {chunk} is kept again");
                let (head, first, keys) = &of_queries[&chunk];
                let context = format!("{problem:?}, {rows} rows, chunk {chunk}: {keys:?}");
                assert_eq!((*head, *first), (visit[1] as usize, query), "{context}");
                for (at, of_row) in keys.iter().enumerate() {
                    let position = key + at as i32;
                    assert!([-1, position].contains(of_row), "{context}: {position}");
                }
                found.insert((*head, query, key));
            }
        }
    }
    // Each chunk with a pair that attends is kept.
    for sequence in problem.sequences() {
        let span = sequence.span;
        for head in 0..heads {
            for q in span.q_start..span.q_start + span.q_len {
                for k in span.kv_start..span.kv_start + span.kv_len {
                    let (i, j) = (q / tile.block, k / tile.block);
                    let causal = pattern.head(head).is_causal();
                    if (!causal || k <= q) && pattern.attends(head, i, j) {
                        let first = |token: usize| (token / CHUNK * CHUNK) as i32;
                        let chunk = (head, first(q), first(k));
                        assert!(found.contains(&chunk), "{problem:?}: {chunk:?}");
                    }
                }
            }
        }
    }
    chunks.len()
}

fn shape(pattern: &Pattern, seq_q: usize, seq_kv: usize) -> AttentionShape {
    AttentionShape {
        batch: 1,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q,
        seq_kv,
        head_dim: 16,
        value_dim: 16,
    }
}

#[test]
fn every_pair_has_a_chunk_that_dq_visits() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let window = Rule::SlidingWindow {
        left: 3,
        right: Some(2),
    };
    let ranges = |blocks: usize| Rule::Ranges {
        strides: vec![2, 3],
        range_blocks: vec![blocks],
    };
    let patterns = [
        PatternConfig::local_stride(3, 2, 64, 4).with_num_kv_heads(2),
        PatternConfig::local_stride(3, 5, 16, 2),
        PatternConfig::local_stride(2, 3, 32, 4)
            .with_num_kv_heads(1)
            .with_dense_heads(1),
        PatternConfig::local_stride(1, 2, 128, 2),
        PatternConfig::local_stride(1, 2, 256, 2),
        PatternConfig::dense(64, 1),
        PatternConfig::new(window, 16, 1),
        // Tiles of several columns that visit the same blocks for two intervals.
        PatternConfig::new(ranges(8), 16, 1),
        PatternConfig::new(ranges(2), 64, 1),
    ];
    for config in patterns {
        let pattern = config.build().unwrap();
        let span = SequenceSpan {
            q_start: 171,
            q_len: 250,
            kv_start: 37,
            kv_len: 400,
        };
        // Keys from the second part of a block on.
        let late = SequenceSpan {
            q_start: 198,
            q_len: 135,
            kv_start: 98,
            kv_len: 187,
        };
        let documents = PackedSequences::from_lengths(&[130, 1, 269, 100]).unwrap();
        let problems = [
            AttentionProblem::new(shape(&pattern, 512, 512), &pattern, None, None),
            AttentionProblem::new(shape(&pattern, 250, 400), &pattern, None, Some(vec![span])),
            AttentionProblem::new(shape(&pattern, 140, 190), &pattern, None, Some(vec![late])),
            AttentionProblem::packed(shape(&pattern, 500, 500), &pattern, None, &documents),
        ];
        for problem in problems.map(Result::unwrap) {
            for rows in [128, 64] {
                assert!(hold(&client, &problem, rows) > 0, "{problem:?}");
            }
        }
    }
}
