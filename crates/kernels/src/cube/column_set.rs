//! Arithmetic sets of columns, and what they have in common.

use s2_attention_pattern::Band;

use super::columns::FAR;

/// Columns of a period that are looked at one by one, to see whether other sets hold them all.
const MOST_COLUMNS: i64 = 4096;

/// `first, first + stride, ..` below `end`: at least one column, and one set for the same columns.
///
/// `end` is one after the last column, or [`FAR`] without a bound; one column alone has a stride of 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColumnSet {
    pub(super) first: i64,
    pub(super) stride: i64,
    pub(super) end: i64,
}

impl ColumnSet {
    pub(super) const ALL: Self = Self {
        first: 0,
        stride: 1,
        end: FAR,
    };

    /// Columns congruent to `residue` modulo `stride` in `start..end`, where there are any.
    fn new(residue: i64, stride: i64, start: i64, end: i64) -> Option<Self> {
        let end = end.min(FAR);
        let first = start + (residue - start).rem_euclid(stride);
        if first >= end {
            return None;
        }
        let last = first + (end - 1 - first) / stride * stride;
        Some(Self {
            first,
            stride: if first == last { 1 } else { stride },
            end: if end == FAR && first < last {
                FAR
            } else {
                last + 1
            },
        })
    }

    /// The columns of a band with a stride up to [`FAR`].
    pub(super) fn of(band: &Band) -> Option<Self> {
        Self::new(
            band.residue,
            band.stride,
            band.column_start.max(0),
            band.column_end,
        )
    }

    fn holds(&self, column: i64) -> bool {
        (self.first..self.end).contains(&column) && (column - self.first) % self.stride == 0
    }

    fn is_single(&self) -> bool {
        self.first + 1 == self.end
    }

    /// Whether all columns of `other` are among these.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.holds(other.first)
            && (other.is_single() || other.stride % self.stride == 0)
            && other.end <= self.end
    }

    pub(super) fn intersection(&self, other: &Self) -> Option<Self> {
        let common = gcd(self.stride, other.stride);
        let apart = other.first - self.first;
        if apart % common != 0 {
            return None;
        }
        // `self.first + steps * self.stride` is the first that is congruent to both.
        let period = other.stride / common;
        let steps = (apart / common).rem_euclid(period)
            * inverse(self.stride / common, period).rem_euclid(period)
            % period;
        Self::new(
            self.first + steps * self.stride,
            self.stride * period,
            self.first.max(other.first),
            self.end.min(other.end),
        )
    }

    /// Whether this is a residue class from its start on.
    pub(super) fn is_whole_residue(&self) -> bool {
        self.first < self.stride && self.end == FAR
    }

    /// What orders sets such that none comes after one that contains it, and those of a stride by residue: single columns,
    /// then the larger strides, then the shorter sets.
    pub(super) fn order(&self) -> (bool, i64, i64, i64) {
        let periods = (self.end - self.first / self.stride * self.stride) / self.stride;
        (!self.is_single(), -self.stride, periods, self.first)
    }

    /// Whether `sets` together hold all of these columns, as far as a look at [`MOST_COLUMNS`] tells.
    pub(super) fn is_covered_by(&self, sets: &[Self]) -> bool {
        let parts: Vec<Self> = sets
            .iter()
            .filter_map(|set| self.intersection(set))
            .collect();
        let mut cuts: Vec<i64> = parts
            .iter()
            .flat_map(|part| [part.first, part.end])
            .collect();
        cuts.extend([self.first, self.end]);
        cuts.sort_unstable();
        // Between two cuts columns repeat with the strides.
        let lcm = |a: i64, b: i64| (a / gcd(a, b)).saturating_mul(b);
        let period = parts.iter().map(|part| part.stride).fold(self.stride, lcm);
        cuts.windows(2).all(|cut| {
            let end = cut[1].min(cut[0].saturating_add(period));
            match Self::new(self.first, self.stride, cut[0], end) {
                None => true,
                Some(columns) if (end - columns.first) / self.stride > MOST_COLUMNS => false,
                Some(columns) => (columns.first..end)
                    .step_by(self.stride as usize)
                    .all(|column| parts.iter().any(|part| part.holds(column))),
            }
        })
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The inverse of `a` modulo `m`, which have no common divisor; of any sign.
fn inverse(a: i64, m: i64) -> i64 {
    let (mut rest, mut next) = (a % m, m);
    let (mut factor, mut next_factor) = (1, 0);
    while next != 0 {
        let times = rest / next;
        (rest, next) = (next, rest - times * next);
        (factor, next_factor) = (next_factor, factor - times * next_factor);
    }
    factor
}

#[cfg(test)]
mod tests {
    use super::{ColumnSet, FAR};

    fn sets() -> Vec<ColumnSet> {
        let strides = [1, 2, 3, 4, 6, 8, 12];
        let ends = [
            (0, FAR),
            (0, 1),
            (0, 9),
            (3, FAR),
            (5, 6),
            (7, 40),
            (0, 100),
        ];
        let set = |stride: i64, residue: i64| {
            ends.map(|(start, end)| ColumnSet::new(residue, stride, start, end))
        };
        let sets = strides
            .into_iter()
            .flat_map(|stride| (0..stride).flat_map(move |residue| set(stride, residue)));
        sets.flatten().collect()
    }

    #[test]
    fn sets_agree_with_their_columns() {
        let columns = |set: &ColumnSet| (0..200).map(|c| set.holds(c)).collect::<Vec<_>>();
        for a in sets() {
            let of_a = columns(&a);
            for b in sets() {
                let of_b = columns(&b);
                let both: Vec<bool> = of_a.iter().zip(&of_b).map(|(a, b)| *a && *b).collect();
                let held = a
                    .intersection(&b)
                    .map_or(vec![false; 200], |set| columns(&set));
                assert_eq!(held, both, "{a:?} and {b:?}");
                assert_eq!(a.contains(&b), both == of_b, "{a:?} contains {b:?}");
                assert_eq!(of_a == of_b, a == b, "{a:?} is {b:?}");
                if a != b && a.contains(&b) {
                    assert!(b.order() < a.order(), "{b:?} before {a:?}");
                }
            }
        }
    }

    #[test]
    fn sets_that_cover_are_known() {
        let set =
            |residue, stride, start, end| ColumnSet::new(residue, stride, start, end).unwrap();
        let all = ColumnSet::ALL;
        assert!(all.is_covered_by(&[set(0, 1, 0, 4), set(0, 1, 4, FAR)]));
        assert!(!all.is_covered_by(&[set(0, 1, 0, 4), set(0, 1, 5, FAR)]));
        assert!(all.is_covered_by(&[set(0, 2, 0, FAR), set(1, 4, 0, FAR), set(3, 4, 0, FAR)]));
        assert!(!all.is_covered_by(&[set(0, 2, 0, FAR), set(1, 4, 0, FAR), set(3, 4, 0, 99)]));
        assert!(set(5, 8, 0, FAR).is_covered_by(&[set(1, 4, 0, FAR)]));
        assert!(!set(5, 8, 0, FAR).is_covered_by(&[]));
        assert!(set(3, 7, 0, 4).is_covered_by(&[set(1, 2, 0, 90)]));
    }

    #[test]
    fn large_strides_do_not_overflow() {
        let prime = (1 << 30) - 35;
        let sets = [(5, prime), (7, 1 << 30), (12, (1 << 29) + 1)]
            .map(|(residue, stride)| ColumnSet::new(residue, stride, 0, FAR).unwrap());
        for a in sets {
            for b in sets {
                assert_eq!(a.intersection(&b), (a == b).then_some(a));
            }
            assert!(!ColumnSet::ALL.is_covered_by(&[a]));
        }
    }
}
