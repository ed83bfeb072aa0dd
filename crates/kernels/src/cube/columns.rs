//! Columns of a key/value head, sorted into classes whose rows are the same up to a shift.
//!
//! With dK and dV owned by column tiles, a tile of neighbouring columns would walk the rows of its heaviest member:
//! one stride column makes all of them stride columns. Columns are therefore packed *by class*. In the closed form
//! a class is an arithmetic set of columns, and the queries that attend column `j` are those at distances `i - j` of a
//! few intervals, the same for every `j` of the class. Nothing of the length of a sequence is stored.

use s2_attention_pattern::{Anchor, Band, Pattern};

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

/// A set of columns: `residue` modulo `stride` in `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ColumnSet {
    stride: i64,
    residue: i64,
    start: i64,
    end: i64,
}

impl ColumnSet {
    const ALL: Self = Self {
        stride: 1,
        residue: 0,
        start: 0,
        end: FAR,
    };

    fn of(band: &Band) -> Self {
        Self {
            stride: band.stride,
            residue: band.residue,
            start: band.column_start,
            end: band.column_end.min(FAR),
        }
    }

    fn contains(&self, other: &Self) -> bool {
        other.stride % self.stride == 0
            && other.residue % self.stride == self.residue
            && self.start <= other.start
            && other.end <= self.end
    }

    fn disjoint(&self, other: &Self) -> bool {
        let common = gcd(self.stride, other.stride);
        self.residue % common != other.residue % common
            || self.end <= other.start
            || other.end <= self.start
    }

    fn is_whole_residue(&self) -> bool {
        self.start == 0 && self.end == FAR
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

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
        let mut special: Vec<ColumnSet> = Vec::new();
        for set in bands().map(ColumnSet::of) {
            if set != ColumnSet::ALL && !special.contains(&set) {
                special.push(set);
            }
        }
        // The smallest sets first, so that a class is what is left of its set once smaller ones are taken out. Those
        // that share a stride are in order of residue, which `Members::Others` relies on.
        special.sort_by_key(|set| (set.is_whole_residue(), -set.stride, set.residue));
        let constant = |(index, set): (usize, &ColumnSet)| {
            let later = &special[index + 1..];
            later
                .iter()
                .all(|other| other.contains(set) || other.disjoint(set))
        };
        if !special.iter().enumerate().all(constant) {
            return None;
        }

        let intervals = |set: &ColumnSet| -> Vec<Vec<Interval>> {
            let of_head = |bands: &&[Band]| {
                let containing = bands.iter().filter(|b| ColumnSet::of(b).contains(set));
                merged(containing.map(distances).collect())
            };
            heads.iter().map(of_head).collect()
        };
        let mut classes: Vec<ColumnClass> = special
            .iter()
            .map(|set| ColumnClass {
                members: Members::Arithmetic {
                    first: set.start + (set.residue - set.start).rem_euclid(set.stride),
                    stride: set.stride,
                    end: set.end,
                },
                intervals: intervals(set),
            })
            .collect();
        let one_stride = special.first().map(|first| first.stride).filter(|stride| {
            special
                .iter()
                .all(|set| set.is_whole_residue() && set.stride == *stride)
        });
        let rest = match one_stride {
            Some(stride) if stride == special.len() as i64 => None,
            Some(stride) => Some(Members::Others { stride }),
            None => Some(ALL_MEMBERS),
        };
        classes.extend(rest.map(|members| ColumnClass {
            members,
            intervals: intervals(&ColumnSet::ALL),
        }));
        Some(Self {
            classes,
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
