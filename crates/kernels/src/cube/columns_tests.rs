//! Classes of columns against the pattern, column by column.

use s2_attention_pattern::{Pattern, PatternConfig, Rule};

use super::{ColumnClass, ColumnClasses, Interval, Members};
use crate::cube::index::Index;
use crate::cube::split::{Split, TileVisits};
use crate::cube::tile::Tile;
use crate::{AttentionProblem, AttentionShape};

/// Query and key blocks that are looked at.
const BLOCKS: usize = 100;

/// The columns of each class below `blocks`, each column once.
fn columns(classes: &[ColumnClass], blocks: usize) -> Vec<Vec<usize>> {
    let mut taken = vec![false; blocks];
    let mut of_class = |class: &ColumnClass| {
        let mine = |column: usize| match class.members {
            Members::Arithmetic { first, stride, end } => {
                let column = column as i64;
                column >= first && column < end && (column - first) % stride == 0
            }
            Members::Others { .. } => true,
        };
        let columns: Vec<usize> = (0..blocks).filter(|c| mine(*c) && !taken[*c]).collect();
        columns.iter().for_each(|column| taken[*column] = true);
        columns
    };
    let columns = classes.iter().map(&mut of_class).collect();
    assert!(!taken.contains(&false), "columns of no class");
    columns
}

/// Checks the classes of all key/value heads; returns how many each has, and the pairs of blocks that they visit over those
/// that the pattern keeps.
fn held(pattern: &Pattern) -> (Vec<usize>, usize, usize) {
    let (mut counts, mut visited, mut kept) = (Vec::new(), 0, 0);
    let group = pattern.group_size();
    for kv_head in 0..pattern.num_kv_heads() {
        let classes = ColumnClasses::new(pattern, kv_head);
        counts.push(classes.classes.len());
        let classes = classes.classes;
        for (class, columns) in classes.iter().zip(columns(&classes, BLOCKS)) {
            for (head, intervals) in class.intervals.iter().enumerate() {
                for &j in &columns {
                    for i in 0..BLOCKS {
                        let attends = pattern.attends(kv_head * group + head, i, j);
                        let visits = visits(intervals, i, j);
                        assert!(visits || !attends, "({i}, {j}) is not visited");
                        visited += usize::from(visits);
                        kept += usize::from(attends);
                    }
                }
            }
        }
    }
    (counts, visited, kept)
}

/// Whether the blocks of queries that `column` visits, at the distances of its class, have this one among them.
fn visits(intervals: &[Interval], query: usize, column: usize) -> bool {
    let distance = query as i64 - column as i64;
    let mut intervals = intervals.iter();
    intervals.any(|(min, max)| (*min..=*max).contains(&distance))
}

fn per_head(rules: &[Rule], num_kv_heads: usize) -> Pattern {
    PatternConfig::new(Rule::PerHead(rules.to_vec()), 16, rules.len())
        .with_num_kv_heads(num_kv_heads)
        .build()
        .unwrap()
}

fn stride(local_blocks: usize, vert_stride: usize) -> Rule {
    Rule::LocalStride {
        local_blocks,
        vert_stride,
    }
}

fn sink(sink_blocks: usize, right: Option<usize>) -> Rule {
    Rule::SinkWindow {
        sink_blocks,
        left: 5,
        right,
    }
}

#[test]
fn sets_that_cover_all_columns_leave_no_class() {
    for right in [None, Some(3)] {
        let (classes, visited, kept) = held(&per_head(&[sink(4, right)], 1));
        assert_eq!((classes, visited), (vec![2], kept));
    }
    // A stride of each residue, and no head without one.
    let (classes, visited, kept) = held(&per_head(&vec![stride(3, 4); 4], 1));
    assert_eq!((classes, visited), (vec![4], kept));
}

#[test]
fn heads_of_a_group_with_different_sets_visit_no_more_than_they_keep() {
    let groups = [
        [sink(2, None), stride(4, 8)],
        [sink(7, None), stride(4, 3)],
        [stride(2, 6), stride(3, 4)],
        [stride(1, 5), stride(3, 7)],
        [sink(3, None), sink(9, None)],
        [stride(3, 1 << 20), stride(3, 8)],
        [Rule::Dense { causal: true }, sink(9, None)],
    ];
    for rules in groups {
        let (classes, visited, kept) = held(&per_head(&rules, 1));
        assert_eq!(visited, kept, "{rules:?}");
        assert!(classes[0] <= 10, "{classes:?} classes for {rules:?}");
    }
}

/// Strides without a common divisor in many heads: classes for all that they share would be too many.
#[test]
fn too_many_sets_are_covered_by_one_class() {
    let rules: Vec<Rule> = (7..15).map(|vert_stride| stride(2, vert_stride)).collect();
    let (classes, visited, kept) = held(&per_head(&rules, 1));
    assert_eq!(classes, [1]);
    assert!(visited > kept);
}

/// Processors of an H200.
const PROCESSORS: usize = 132;

/// How a launch of dK and dV of all heads is split there, of tiles of so many columns.
fn split(pattern: &Pattern, blocks: usize, columns: usize) -> Option<Split> {
    let tokens = blocks * pattern.block_size();
    let shape = AttentionShape {
        batch: 1,
        num_heads: pattern.num_heads(),
        num_kv_heads: pattern.num_kv_heads(),
        seq_q: tokens,
        seq_kv: tokens,
        head_dim: 128,
        value_dim: 128,
    };
    let problem = AttentionProblem::new(shape, pattern, None, None).unwrap();
    let tile = |columns| Tile {
        rows: columns * pattern.block_size(),
        block: pattern.block_size(),
        table: false,
    };
    let index = Index::new(&problem, tile(columns), usize::MAX).unwrap();
    let visits = TileVisits::new(&problem, &index.key_places, tile(columns), tile(1)).unwrap();
    visits.split(&(0..pattern.num_kv_heads()), PROCESSORS)
}

/// How much longer the busiest processor is at one launch of dK and dV than their mean, without what splits it and with, counted in blocks
/// of queries that tiles of so many columns visit: cubes begin in the order of the classes, each where a processor is free.
fn busiest_over_mean(
    rule: Rule,
    [heads, kv_heads]: [usize; 2],
    blocks: usize,
    of_tile: usize,
) -> [f64; 2] {
    let pattern = PatternConfig::new(rule, 64, heads).with_num_kv_heads(kv_heads);
    let pattern = pattern.build().unwrap();
    let of_head = |kv_head| -> Vec<usize> {
        let classes = ColumnClasses::new(&pattern, kv_head).classes;
        let columns = columns(&classes, blocks);
        let tiles = classes.iter().zip(&columns);
        let of_class = |(class, columns): (&ColumnClass, &Vec<usize>)| -> Vec<usize> {
            let visits = |tile: &[usize]| visited(class, tile, blocks);
            columns.chunks(of_tile).map(visits).collect()
        };
        tiles.flat_map(of_class).collect()
    };
    let tiles: Vec<Vec<usize>> = (0..kv_heads).map(of_head).collect();
    let ratio = |split: Option<Split>| {
        let mut busy = [0; PROCESSORS];
        for number in 0..tiles.iter().map(Vec::len).max().unwrap() {
            let split = split.filter(|split| number < split.tiles);
            let cubes = split.map_or(1, |split| split.cubes);
            for visits in tiles.iter().filter_map(|of_head| of_head.get(number)) {
                for cube in 0..cubes {
                    *busy.iter_mut().min().unwrap() += (visits + cubes - 1 - cube) / cubes;
                }
            }
        }
        let mean = busy.iter().sum::<usize>() as f64 / PROCESSORS as f64;
        *busy.iter().max().unwrap() as f64 / mean
    };
    [ratio(None), ratio(split(&pattern, blocks, of_tile))]
}

/// Blocks of queries that a tile of columns visits, of all query heads of its group.
fn visited(class: &ColumnClass, tile: &[usize], blocks: usize) -> usize {
    let of_head = |intervals: &Vec<Interval>| {
        let is_visited =
            |query: &usize| tile.iter().any(|column| visits(intervals, *query, *column));
        (0..blocks).filter(is_visited).count()
    };
    class.intervals.iter().map(of_head).sum()
}

/// Heaviest first is enough where 16 heads are launched at once: no processor is waited for much longer than the others take.
#[test]
fn the_heaviest_columns_of_many_heads_are_not_waited_for() {
    for (rule, heads, blocks) in [
        (stride(16, 16), [16, 16], 128),
        (stride(16, 16), [16, 16], 512),
        (stride(16, 8), [16, 16], 128),
        (stride(16, 8), [32, 8], 128),
        (stride(16, 8), [32, 8], 512),
        (stride(8, 32), [32, 32], 512),
        (stride(8, 64), [64, 64], 512),
        (Rule::Dense { causal: true }, [16, 16], 128),
    ] {
        let ratios = busiest_over_mean(rule.clone(), heads, blocks, 2);
        assert!(
            ratios.iter().all(|ratio| (1.0..1.1).contains(ratio)),
            "{ratios:?} for {rule:?}, {heads:?} heads, {blocks} blocks"
        );
    }
}

/// With a few heads they would be: they are split. Where tiles of two columns, counted for all
/// query heads, would be fewer than processors, they have one.
#[test]
fn the_heaviest_columns_of_few_heads_are_split() {
    for (rule, heads, blocks, of_tile, waits) in [
        (stride(16, 16), [1, 1], 128, 1, 7.1),
        (stride(16, 16), [1, 1], 512, 2, 8.0),
        (stride(16, 16), [1, 1], 2048, 2, 3.2),
        (stride(16, 16), [2, 2], 512, 2, 4.0),
        (stride(16, 16), [4, 4], 128, 2, 3.3),
        (stride(16, 16), [4, 4], 512, 2, 2.0),
        (stride(16, 16), [8, 8], 128, 2, 1.6),
        (stride(16, 8), [8, 2], 128, 2, 2.0),
        (stride(16, 8), [8, 1], 512, 2, 1.4),
        (Rule::Dense { causal: true }, [1, 1], 128, 1, 2.0),
    ] {
        let [whole, split] = busiest_over_mean(rule.clone(), heads, blocks, of_tile);
        assert!(
            (waits..waits + 0.3).contains(&whole) && (1.0..1.3).contains(&split),
            "{whole}, {split} for {rule:?}, {heads:?} heads, {blocks} blocks"
        );
    }
}
