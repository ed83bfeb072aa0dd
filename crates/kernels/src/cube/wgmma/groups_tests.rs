//! What is said of groups, beside what the pattern says of each pair. The schedule alone runs here, on any device.

use std::collections::HashMap;

use cubecl::client::Client;
use cubecl::prelude::*;
use s2_attention_pattern::{BlockMask, Pattern, PatternConfig, Rule};

use super::groups::{ALL, NOTHING, keys_attending, keys_of_groups, queries_attending};
use super::own_keys_for_tests::own_keys;
use super::ring::are_ranges;
use super::size::{ROWS, VISITED};
use crate::cube::device_for_tests;
use crate::cube::indexed::Indexed;
use crate::cube::mma::keys::query_cursor;
use crate::cube::mma::queries::key_cursor;
use crate::cube::tile::Tile;
use crate::cube::walk::{NONE, key_reach, query_reach, query_tile};
use crate::{AttentionProblem, AttentionShape, PackedSequences, SequenceSpan};

/// Words of a visit before the tokens of its rows: its bits, its head, the distances in blocks that it covers, whether its masks look
/// at ranges in place of tokens, and its first token.
const HEAD: usize = 6;
/// Words of a visit.
const WORDS: usize = HEAD + VISITED;

/// Of the query tile of each cube, the head, the tokens, and the visits up to `most`.
#[cube(launch)]
fn visits_of_queries(
    out: &mut [i32],
    index: &[i32],
    heads: u32,
    kv_heads: u32,
    most: u32,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    let own = query_tile(index, CUBE_POS as u32, heads, kv_heads, tile);
    let reach_of_all = query_reach(&own, tile);
    let mut cursor = key_cursor();
    let mut at = CUBE_POS * (comptime!(1 + tile.rows) + most as usize * WORDS);
    out[at] = own.head as i32;
    at += 1;
    #[unroll]
    for part in 0..comptime!(tile.rows / VISITED) {
        let row = UNIT_POS + comptime!((part * VISITED) as u32);
        let token = own.rows.token(index, row, comptime!(tile.in_order()));
        out[at + row as usize] = select(token < own.span.q_end, token, NONE);
    }
    at += comptime!(tile.rows);
    for _ in 0..most {
        cursor.advance(index, &own.walk, &own.span, tile, visited);
        let visit = cursor.describe(&own, index, &reach_of_all, tile, visited);
        let keys = cursor.reach(&own, index, visited);
        if visit.any {
            out[at] = queries_attending(&visit, &own, &keys, tile) as i32;
            out[at + 2] = visit.distances.min;
            out[at + 3] = visit.distances.max;
            out[at + 4] = select(are_ranges(&visit.distances, &keys, visited), 1i32, 0i32);
            out[at + 5] = keys.first_token;
            out[at + HEAD + UNIT_POS as usize] = cursor.token(&own, index, UNIT_POS, visited);
        } else {
            out[at] = -1i32;
        }
        at += WORDS;
    }
}

/// Of the key tile of each cube and key/value head, the head, the tokens, and the visits up to `most`.
#[cube(launch)]
fn visits_of_keys(
    out: &mut [i32],
    index: &[i32],
    heads: u32,
    kv_heads: u32,
    most: u32,
    #[comptime] tile: Tile,
    #[comptime] visited: Tile,
) {
    let keys = own_keys(index, CUBE_POS as u32, heads, kv_heads, tile);
    let (own, span, group) = (keys.own, keys.span, keys.group);
    let first_head = keys.first_head;
    let reach_of_all = key_reach(&own, index, tile);
    let keys_of = keys_of_groups(&own, index, tile);
    let mut cursor = query_cursor();
    let mut at = CUBE_POS * (comptime!(1 + tile.rows) + most as usize * WORDS);
    out[at] = keys.kv_head as i32;
    at += 1;
    #[unroll]
    for part in 0..comptime!(tile.rows / VISITED) {
        let row = UNIT_POS + comptime!((part * VISITED) as u32);
        let token = own.token(index, row, span.kv_start, span.kv_rows_end, tile);
        out[at + row as usize] = select(token < span.kv_end, token, NONE);
    }
    at += comptime!(tile.rows);
    for _ in 0..most {
        cursor.advance(&own, index, &group, &span, tile, visited);
        let reach = cursor.reach(index, &span, visited);
        let visit = cursor.describe(&group, &reach, &reach_of_all, tile);
        if visit.any {
            out[at] = keys_attending(&visit, &reach, &keys_of, tile) as i32;
            out[at + 1] = first_head as i32 + visit.head;
            out[at + 2] = visit.distances.min;
            out[at + 3] = visit.distances.max;
            out[at + 4] = select(are_ranges(&visit.distances, &reach, visited), 1i32, 0i32);
            out[at + 5] = reach.first_token;
            out[at + HEAD + UNIT_POS as usize] =
                cursor.rows(&span, visited).token(index, UNIT_POS, visited);
        } else {
            out[at] = -1i32;
        }
        at += WORDS;
    }
}

/// What was said of the groups of a problem.
#[derive(Debug, Default)]
struct Seen {
    /// Visits of which a group attends all, nothing, and a part.
    all: usize,
    nothing: usize,
    part: usize,
    /// Visits of which a group is said to attend a part, and attends all or nothing.
    missed: usize,
    /// Visits whose masks are of ranges.
    ranges: usize,
    /// Pairs that attend, and those of them that are visited more than once.
    pairs: usize,
    again: usize,
}

/// Holds the bits of every group and visit to every pair that has a token.
fn hold(client: &Client, problem: &AttentionProblem, rows: usize, queries: bool) -> Seen {
    let indexed = Indexed::new(client, problem, rows).unwrap();
    let (tile, shape, pattern) = (indexed.owned, problem.shape(), problem.pattern());
    let visited = Tile {
        rows: VISITED,
        ..tile
    };
    let (heads, kv_heads) = (shape.num_heads, shape.num_kv_heads);
    let cubes = if queries {
        indexed.tiles.rows * heads
    } else {
        indexed.tiles.columns * kv_heads
    };
    // Each visit of a head has a block or a part of one of its own, once for each interval that holds it.
    let longest = shape.seq_q.max(shape.seq_kv);
    let most = 4 * heads * longest.div_ceil(tile.block.min(VISITED));
    let words = 1 + rows + most * WORDS;
    let out = client.empty(cubes * words * size_of::<i32>());
    let launch = if queries {
        visits_of_queries::launch
    } else {
        visits_of_keys::launch
    };
    launch(
        client,
        CubeCount::Static(cubes as u32, 1, 1),
        CubeDim::new_1d(VISITED as u32),
        unsafe { BufferArg::from_raw_parts(out.clone(), cubes * words) },
        indexed.arg(),
        heads as u32,
        kv_heads as u32,
        most as u32,
        tile,
        visited,
    );
    let bytes = client.read_one(out).unwrap();
    let mut seen = Seen::default();
    let mut visited_pairs: HashMap<(usize, i32, i32), usize> = HashMap::new();
    for of_cube in i32::from_bytes(&bytes).chunks(words) {
        let (own, visits) = (&of_cube[1..=rows], &of_cube[1 + rows..]);
        for (number, visit) in visits
            .chunks(WORDS)
            .take_while(|visit| visit[0] >= 0)
            .enumerate()
        {
            assert!(number + 1 < most, "more than {most} visits");
            if visit[4] != 0 {
                // Masks ask for the first token alone: the others follow it.
                let mut following = (visit[5]..).zip(&visit[HEAD..]);
                assert!(
                    following.all(|(expected, token)| expected == *token),
                    "{problem:?}: queries {queries}, {rows} rows: {visit:?}"
                );
                seen.ranges += 1;
            }
            let head = if queries { of_cube[0] } else { visit[1] } as usize;
            let distances = visit[2]..=visit[3];
            let causal = pattern.head(head).is_causal();
            for (group, own) in own.chunks(ROWS).enumerate() {
                let said = |bit: u32| visit[0] as u32 & (bit << group) != 0;
                let (all, nothing) = (said(ALL), said(NOTHING));
                let mut pairs = [0, 0];
                for &mine in own.iter().filter(|token| **token != NONE) {
                    for &other in &visit[HEAD..] {
                        let [q, k] = if queries {
                            [mine, other]
                        } else {
                            [other, mine]
                        };
                        let of_block = |token: i32| token / tile.block as i32;
                        let in_range = other != NONE
                            && (!causal || k <= q)
                            && distances.contains(&(of_block(q) - of_block(k)));
                        let attends = in_range
                            && pattern.attends(head, of_block(q) as usize, of_block(k) as usize);
                        // Masks of ranges ask for nothing else.
                        assert!(
                            visit[4] == 0 || attends == in_range,
                            "{problem:?}: queries {queries}, {rows} rows, {q} and {k} of {visit:?}"
                        );
                        pairs[usize::from(attends)] += 1;
                        if attends {
                            *visited_pairs.entry((head, q, k)).or_insert(0) += 1;
                        }
                    }
                }
                let what = || {
                    format!(
                        "{problem:?}: queries {queries}, {rows} rows, group {group}: {pairs:?} of {own:?} and {visit:?}"
                    )
                };
                assert!(!all || pairs[0] == 0, "not all attend: {}", what());
                assert!(!nothing || pairs[1] == 0, "some attend: {}", what());
                if pairs == [0, 0] {
                    continue;
                }
                seen.all += usize::from(all);
                seen.nothing += usize::from(nothing);
                seen.part += usize::from(!all && !nothing);
                seen.missed += usize::from(!all && !nothing && pairs.contains(&0));
            }
        }
    }
    seen.pairs = visited_pairs.len();
    seen.again = visited_pairs.values().filter(|times| **times > 1).count();
    seen
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

/// Whole blocks, queries from the first key on: each group knows what it attends of every visit.
#[test]
fn groups_know_what_they_attend() {
    let Some(client) = device_for_tests() else {
        return;
    };
    for (block, local, stride) in [(64, 4, 3), (16, 8, 5), (128, 2, 2)] {
        let pattern = Pattern::local_stride(local, stride, block, 2).unwrap();
        let shape = shape(&pattern, 1152, 1152);
        let problem = AttentionProblem::new(shape, &pattern, None, None).unwrap();
        let attending =
            |head| (0..1152).flat_map(move |q| (0..=q).map(move |k| (head, q / block, k / block)));
        let pairs = (0..2)
            .flat_map(attending)
            .filter(|(head, i, j)| pattern.attends(*head, *i, *j))
            .count();
        for (rows, queries) in [(192, true), (128, true), (128, false), (64, false)] {
            if rows == 192 && block == 128 {
                // Blocks of 128 are owned one at a time.
                continue;
            }
            let seen = hold(&client, &problem, rows, queries);
            let context = format!("block {block}, {rows} rows, queries {queries}: {seen:?}");
            assert_eq!((seen.pairs, seen.again), (pairs, 0), "{context}");
            assert_eq!(seen.ranges > 0, block < 64, "{context}");
            assert!(rows == 64 || seen.nothing > 0, "{context}");
            // Blocks of which a visit holds several attend in parts.
            if block == 64 {
                assert!(seen.all > seen.part, "{context}");
                assert_eq!(seen.missed, 0, "{context}");
            }
        }
    }
}

/// Whatever blocks, sequences and masks are: what is said of a group is true.
#[test]
fn nothing_wrong_is_said_of_groups() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let mask = BlockMask::from_fn([2, 8, 8], true, |head, i, j| {
        j <= i && (i + j + head) % 3 != 0
    });
    let patterns = [
        PatternConfig::local_stride(3, 2, 48, 4).with_num_kv_heads(2),
        PatternConfig::local_stride(1, 2, 200, 2),
        PatternConfig::local_stride(2, 4, 64, 4)
            .with_num_kv_heads(1)
            .with_dense_heads(1),
        PatternConfig::dense(32, 1),
        PatternConfig::local_stride(5, 3, 16, 2),
        PatternConfig::new(Rule::Custom(mask.unwrap()), 64, 2),
    ];
    for config in patterns {
        let pattern = config.build().unwrap();
        let span = SequenceSpan {
            q_start: 171,
            q_len: 250,
            kv_start: 37,
            kv_len: 400,
        };
        let documents = PackedSequences::from_lengths(&[130, 1, 269, 100]).unwrap();
        let problems = [
            AttentionProblem::new(shape(&pattern, 250, 400), &pattern, None, Some(vec![span])),
            AttentionProblem::packed(shape(&pattern, 500, 500), &pattern, None, &documents),
        ];
        for problem in problems.map(Result::unwrap) {
            for (rows, queries) in [(192, true), (64, true), (128, false)] {
                let seen = hold(&client, &problem, rows, queries);
                assert!(seen.all + seen.nothing + seen.part > 0, "{seen:?}");
                let ranges = [16, 32].contains(&pattern.block_size());
                assert_eq!(
                    seen.ranges > 0,
                    ranges,
                    "{problem:?}, {rows} rows: {seen:?}"
                );
            }
        }
    }
}

/// A query block attends along its own diagonals, and a tile of several has those of all of them.
#[test]
fn groups_attend_their_own_diagonals_alone() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let relative = || Rule::BidirectionalRelative {
        local_left: 2,
        local_right: 2,
        vert_stride: 3,
    };
    let window = Rule::SlidingWindow {
        left: 3,
        right: Some(2),
    };
    let rules = [
        (relative(), 64),
        (relative(), 96),
        (relative().causal_clamp(), 64),
        (window, 64),
    ];
    for (rule, block) in rules {
        let pattern = PatternConfig::new(rule, block, 1).build().unwrap();
        let shape = shape(&pattern, 1152, 1152);
        let problem = AttentionProblem::new(shape, &pattern, None, None).unwrap();
        for (rows, queries) in [(192, true), (128, true), (128, false)] {
            let seen = hold(&client, &problem, rows, queries);
            assert!(
                seen.all + seen.part > 0,
                "{pattern:?}, {rows} rows: {seen:?}"
            );
            assert!(
                block != 64 || !queries || seen.all > 0,
                "{pattern:?}, {rows} rows: {seen:?}"
            );
        }
    }
}

/// A table of which each tile is a part of one block: halves of a block differ on the diagonal alone.
#[test]
fn halves_of_a_block_of_a_table() {
    let Some(client) = device_for_tests() else {
        return;
    };
    let mask = BlockMask::from_fn([1, 5, 5], true, |_, i, j| j <= i && (i + j) % 3 != 1);
    let pattern = PatternConfig::new(Rule::Custom(mask.unwrap()), 128, 1);
    let pattern = pattern.build().unwrap();
    let problem = AttentionProblem::new(shape(&pattern, 600, 600), &pattern, None, None).unwrap();
    let seen = hold(&client, &problem, 128, true);
    assert!(seen.all > 0 && seen.nothing > 0, "{seen:?}");
}
