//! Classes of columns against the pattern, column by column.

use s2_attention_pattern::{Pattern, PatternConfig, Rule};

use super::{ColumnClass, ColumnClasses, Members};

/// Query and key blocks that are looked at.
const BLOCKS: usize = 100;

/// The columns of each class, each column once.
fn columns(classes: &[ColumnClass]) -> Vec<Vec<usize>> {
    let mut taken = [false; BLOCKS];
    let mut of_class = |class: &ColumnClass| {
        let mine = |column: usize| match class.members {
            Members::Arithmetic { first, stride, end } => {
                let column = column as i64;
                column >= first && column < end && (column - first) % stride == 0
            }
            Members::Others { .. } => true,
        };
        let columns: Vec<usize> = (0..BLOCKS).filter(|c| mine(*c) && !taken[*c]).collect();
        columns.iter().for_each(|column| taken[*column] = true);
        columns
    };
    let columns = classes.iter().map(&mut of_class).collect();
    assert_eq!(taken, [true; BLOCKS], "columns of no class");
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
        for (class, columns) in classes.classes.iter().zip(columns(&classes.classes)) {
            for (head, intervals) in class.intervals.iter().enumerate() {
                for &j in &columns {
                    let visits = |i: usize| {
                        let distance = i as i64 - j as i64;
                        let mut intervals = intervals.iter();
                        intervals.any(|(min, max)| (*min..=*max).contains(&distance))
                    };
                    for i in 0..BLOCKS {
                        let attends = pattern.attends(kv_head * group + head, i, j);
                        assert!(visits(i) || !attends, "({i}, {j}) is not visited");
                        visited += usize::from(visits(i));
                        kept += usize::from(attends);
                    }
                }
            }
        }
    }
    (counts, visited, kept)
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
