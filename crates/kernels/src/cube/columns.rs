//! Columns of a key/value head, sorted into classes whose rows are the same up to a shift.
//!
//! With dK and dV owned by column tiles, a tile of neighbouring columns would walk the rows of its heaviest member:
//! one stride column makes all of them stride columns. Columns are therefore packed *by class*. In the closed form
//! a class is an arithmetic set of columns, and the queries that attend column `j` are those at distances `i - j` of a
//! few intervals, the same for every `j` of the class. Nothing of the length of a sequence is stored.

use s2_attention_pattern::{Anchor, Band, Pattern};

use super::column_set::ColumnSet;

/// Distances beyond any sequence.
pub(super) const FAR: i64 = 1 << 30;

/// How the members of a class are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    /// `first, first + stride, ..` below `end`, less those of earlier classes.
    Arithmetic { first: i64, stride: i64, end: i64 },
    /// All columns whose residue modulo `stride` is that of no earlier class.
    Others { stride: i64 },
}

const ALL_MEMBERS: Members = Members::Arithmetic {
    first: 0,
    stride: 1,
    end: FAR,
};

/// Distances `i - j`, both ends included.
pub(super) type Interval = (i64, i64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnClass {
    pub(super) members: Members,
    /// For each query head of the group: disjoint, ascending.
    pub(super) intervals: Vec<Vec<Interval>>,
}

/// The classes of one key/value head, heaviest first. Each column is in exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnClasses {
    pub(super) classes: Vec<ColumnClass>,
    /// Whether every distance of an interval is attended. If not, intervals are a cover and pairs must be asked for.
    pub(super) exact: bool,
}

/// Sets that others may share before their intersections are too many to be classes of their own.
const MOST_SHARED: usize = 32;

impl ColumnClasses {
    /// The classes of key/value head `kv_head`, whose query heads all have a closed form.
    pub(super) fn new(pattern: &Pattern, kv_head: usize) -> Self {
        let group = pattern.num_heads() / pattern.num_kv_heads();
        let heads: Vec<Vec<Band>> = (kv_head * group..(kv_head + 1) * group)
            .map(|head| reachable(pattern.head(head).bands().unwrap_or_default()))
            .collect();
        let heads: Vec<&[Band]> = heads.iter().map(Vec::as_slice).collect();
        Self::exact(&heads).unwrap_or_else(|| Self::cover(&heads))
    }

    fn exact(heads: &[&[Band]]) -> Option<Self> {
        let bands = || heads.iter().flat_map(|bands| bands.iter());
        if bands().any(|band| band.anchor == Anchor::Diagonal && band.stride > 1) {
            return None;
        }
        let mut sets = vec![ColumnSet::ALL];
        for set in bands().filter_map(ColumnSet::of) {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        // With what any two sets share a set itself, and smaller sets before those that contain them, a class is what is
        // left of its set once earlier ones are taken out: any other set holds all of it or none.
        let mut sets = closed(sets)?;
        sets.sort_by_key(ColumnSet::order);

        let intervals = |set: &ColumnSet| -> Vec<Vec<Interval>> {
            let holds = |band: &&Band| ColumnSet::of(band).is_some_and(|of| of.contains(set));
            let of_head =
                |bands: &&[Band]| merged(bands.iter().filter(holds).map(distances).collect());
            heads.iter().map(of_head).collect()
        };
        let left = |(at, set): &(usize, &ColumnSet)| !set.is_covered_by(&sets[..*at]);
        let sets_left: Vec<&ColumnSet> = (sets.iter().enumerate().filter(left))
            .map(|(_, set)| set)
            .collect();
        let classes = sets_left.iter().enumerate().map(|(at, set)| ColumnClass {
            members: match residues_of_one_stride(&sets_left[..at]) {
                Some(stride) if **set == ColumnSet::ALL => Members::Others { stride },
                _ => Members::Arithmetic {
                    first: set.first,
                    stride: set.stride,
                    end: set.end,
                },
            },
            intervals: intervals(set),
        });
        Some(Self {
            classes: classes.collect(),
            exact: true,
        })
    }

    /// One class of all columns, with all distances of all bands.
    fn cover(heads: &[&[Band]]) -> Self {
        let of_head = |bands: &&[Band]| merged(bands.iter().map(distances).collect());
        Self {
            classes: vec![ColumnClass {
                members: ALL_MEMBERS,
                intervals: heads.iter().map(of_head).collect(),
            }],
            exact: false,
        }
    }
}

/// The sets with what any of them have in common; `None` where that is too much.
fn closed(mut sets: Vec<ColumnSet>) -> Option<Vec<ColumnSet>> {
    let most = sets.len() + MOST_SHARED;
    let mut at = 0;
    while at < sets.len() {
        for other in 0..at {
            if let Some(shared) = sets[at].intersection(&sets[other])
                && !sets.contains(&shared)
            {
                sets.push(shared);
            }
        }
        if sets.len() > most {
            return None;
        }
        at += 1;
    }
    Some(sets)
}

/// The stride of sets that are residues of one.
fn residues_of_one_stride(sets: &[&ColumnSet]) -> Option<i64> {
    let stride = sets.first()?.stride;
    let residue = |set: &&ColumnSet| set.is_whole_residue() && set.stride == stride;
    sets.iter().all(residue).then_some(stride)
}

/// The bands with strides that kernels can count in: of a stride beyond any sequence one column is left, or none.
pub(super) fn reachable(bands: &[Band]) -> Vec<Band> {
    let reach = |band: &Band| match band.anchor {
        Anchor::Column if band.stride > FAR => (band.residue < FAR).then_some(Band {
            column_start: band.column_start.max(band.residue),
            column_end: band.column_end.min(band.residue + 1),
            stride: 1,
            residue: 0,
            ..*band
        }),
        _ => Some(*band),
    };
    bands.iter().filter_map(reach).collect()
}

fn distances(band: &Band) -> Interval {
    (band.min_distance.max(-FAR), band.max_distance.min(FAR))
}

/// The union of intervals, as disjoint ones that do not touch, ascending.
fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut union: Vec<Interval> = Vec::new();
    for (min, max) in intervals {
        match union.last_mut() {
            Some(last) if min <= last.1 + 1 => last.1 = last.1.max(max),
            _ => union.push((min, max)),
        }
    }
    union
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
