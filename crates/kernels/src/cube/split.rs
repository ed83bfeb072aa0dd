//! Which tiles of keys several cubes share where gradients are computed: those that all processors would wait for.
//!
//! A column that all later queries attend, of stride or sinks, is the work of one cube for as long as the sequence is. The heaviest
//! tiles are the first, and with many heads the others last longer. With a few heads they do not.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::columns::{ColumnClass, ColumnClasses, Interval};
use super::error::CubeError;
use super::index::{group_schedules, key_rows};
use super::place::Places;
use super::select::say;
use super::tile::Tile;
use crate::{AttentionProblem, Sequence};

/// Most cubes that share a tile.
const MOST: usize = 16;
/// Numbers of cubes that may share a tile where that pays.
const CUBES: [usize; 7] = [2, 3, 4, 6, 8, 12, MOST];

/// What a cube takes beside its visits, in visits: until its first, and to write its results.
const WHOLE: u64 = 4;
/// The same of one that shares its tile, whose sums are written in f32 and read again.
const SHARE: u64 = 8;
/// One launch more.
const LAUNCH: u64 = 4;

/// The first tiles of each key/value head are the work of several cubes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    /// Tiles of each head.
    pub(super) tiles: usize,
    /// Cubes of each of these tiles.
    pub(super) cubes: usize,
}

/// Which tiles are split, as `S2_SPLIT` in the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Splitting {
    /// Where processors would wait.
    Heaviest,
    /// All, among so many cubes; none where it is 1.
    All(usize),
}

impl Splitting {
    const VARIABLE: &str = "S2_SPLIT";

    /// # Errors
    /// [`CubeError::Variable`] for what says nothing.
    pub(super) fn of_environment() -> Result<Self, CubeError> {
        match std::env::var_os(Self::VARIABLE) {
            None => Ok(Self::Heaviest),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> Result<Self, CubeError> {
        let accepted = (1..=MOST).find(|cubes| cubes.to_string() == value);
        accepted.map(Self::All).ok_or_else(|| CubeError::Variable {
            name: Self::VARIABLE,
            seen: value.to_owned(),
            accepted: "the cubes that share a tile, 1 to 16",
        })
    }
}

/// How the launches of a call are split.
pub(super) struct Splits {
    splitting: Splitting,
    visits: OnceLock<Option<TileVisits>>,
    of_heads: Mutex<HashMap<Range<usize>, Option<Split>>>,
}

impl Splits {
    pub(super) fn new(splitting: Splitting) -> Self {
        Self {
            splitting,
            visits: OnceLock::new(),
            of_heads: Mutex::default(),
        }
    }

    /// Of the launch of some key/value heads on so many processors; counted once. Tiles that are owned, in `places`, visit others.
    pub(super) fn of(
        &self,
        kv_heads: &Range<usize>,
        problem: &AttentionProblem,
        places: &Places,
        [owned, visited]: [Tile; 2],
        processors: usize,
    ) -> Option<Split> {
        let mut of_heads = self.of_heads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(split) = of_heads.get(kv_heads) {
            return *split;
        }
        let visits = self
            .visits
            .get_or_init(|| TileVisits::new(problem, places, owned, visited));
        let split = visits.as_ref().and_then(|visits| match self.splitting {
            Splitting::Heaviest => visits.split(kv_heads, processors),
            Splitting::All(cubes) => visits.all(cubes),
        });
        if let Some(Split { tiles, cubes }) = split {
            let heads = kv_heads.len();
            say(|| {
                format!(
                    "s2-attention: dK and dV of {heads} key/value heads: {cubes} cubes share each of the first {tiles} tiles of a head"
                )
            });
        }
        of_heads.insert(kv_heads.clone(), split);
        split
    }
}

/// What the tiles of each key/value head visit, in tiles of queries, in the order in which cubes take them.
pub(super) struct TileVisits(Vec<Arc<Vec<u64>>>);

impl TileVisits {
    /// Of tiles `owned`, in these places, that visit tiles `visited`; `None` for tables, whose columns have no classes.
    pub(super) fn new(
        problem: &AttentionProblem,
        places: &Places,
        owned: Tile,
        visited: Tile,
    ) -> Option<Self> {
        if owned.table {
            return None;
        }
        let (pattern, sequences) = (problem.pattern(), problem.sequences());
        let mut of_schedules: HashMap<Vec<usize>, Arc<Vec<u64>>> = HashMap::new();
        let of_head = |kv_head| {
            let count = || {
                let classes = ColumnClasses::new(pattern, kv_head);
                let of = |sequence| classes.visits(sequence, owned, visited);
                let visits: Vec<Vec<u64>> = sequences.iter().map(of).collect();
                let at = |[sequence, number]: [usize; 2]| {
                    // A head of more classes may have more tiles.
                    visits[sequence].get(number).copied().unwrap_or(0)
                };
                Arc::new(places.iter(sequences.len()).map(at).collect())
            };
            let schedules = group_schedules(pattern, kv_head);
            of_schedules.entry(schedules).or_insert_with(count).clone()
        };
        Some(Self((0..pattern.num_kv_heads()).map(of_head).collect()))
    }

    /// How a launch of some key/value heads is split for so many processors, each of which has one cube at a time; `None` where that
    /// saves little.
    pub(super) fn split(&self, kv_heads: &Range<usize>, processors: usize) -> Option<Split> {
        if processors == 0 {
            return None;
        }
        let of_heads = &self.0[kv_heads.clone()];
        let all = || of_heads.iter().flat_map(|of_head| of_head.iter().copied());
        let heaviest = all().max()?;
        let whole = makespan(of_heads, None, processors);
        let at_best = all().map(|visits| visits + WHOLE).sum::<u64>() / processors as u64;
        let saves = |time: u64| 10 * time <= 9 * whole;
        if !saves(at_best + LAUNCH) {
            return None;
        }
        let until = |visits: u64| {
            let heavy = |of_head: &Arc<Vec<u64>>| of_head.iter().rposition(|of| *of > visits);
            of_heads.iter().filter_map(heavy).max().map(|last| last + 1)
        };
        let candidates = CUBES.into_iter().flat_map(|cubes| {
            // All, those that take longer than a cube of the heaviest, and those that take far longer.
            let each = heaviest.div_ceil(cubes as u64);
            let splits = [0, each, 2 * each].map(until).into_iter().flatten();
            splits.map(move |tiles| Split { tiles, cubes })
        });
        let times = candidates.map(|split| (makespan(of_heads, Some(split), processors), split));
        let (time, split) = times.min_by_key(|(time, split)| (*time, split.cubes, split.tiles))?;
        saves(time + LAUNCH).then_some(split)
    }

    /// Of one head.
    #[cfg(all(test, feature = "wgpu"))]
    pub(super) fn of(&self, kv_head: usize) -> &[u64] {
        &self.0[kv_head]
    }

    /// All tiles, among so many cubes each.
    pub(super) fn all(&self, cubes: usize) -> Option<Split> {
        let tiles = self.0.first().map_or(0, |of_head| of_head.len());
        (cubes > 1 && tiles > 0).then_some(Split { tiles, cubes })
    }
}

/// How long so many processors take for heads whose tiles visit `of_heads`, in visits: cubes begin in order, each where a processor is
/// free.
fn makespan(of_heads: &[Arc<Vec<u64>>], split: Option<Split>, processors: usize) -> u64 {
    let mut free_from: BinaryHeap<Reverse<u64>> = vec![Reverse(0); processors].into();
    let mut take = |time: u64| {
        if let Some(mut first) = free_from.peek_mut() {
            first.0 += time;
        }
    };
    let places = of_heads.iter().map(|of_head| of_head.len()).max();
    for place in 0..places.unwrap_or(0) {
        for visits in of_heads.iter().filter_map(|of_head| of_head.get(place)) {
            match split.filter(|split| place < split.tiles) {
                Some(Split { cubes, .. }) => {
                    let cubes = cubes as u64;
                    (0..cubes).for_each(|cube| take((visits + cubes - 1 - cube) / cubes + SHARE));
                }
                None => take(visits + WHOLE),
            }
        }
    }
    free_from
        .into_iter()
        .map(|Reverse(time)| time)
        .max()
        .unwrap_or(0)
}

impl ColumnClasses {
    /// What the tiles of a sequence visit.
    fn visits(&self, sequence: &Sequence, owned: Tile, visited: Tile) -> Vec<u64> {
        let span = sequence.span;
        let block = owned.block;
        let q_end = span.q_start + span.q_len;
        let queries = if span.q_len == 0 || span.kv_len == 0 {
            0..0
        } else {
            (span.q_start / block) as i64..q_end.div_ceil(block) as i64
        };
        // Of large blocks, parts that hold no query are not visited.
        let visits = |first: usize, end: usize| match visited.parts() {
            1 => (end - first).div_ceil(visited.slots()),
            _ => visited.tiles((first * block).max(span.q_start)..(end * block).min(q_end)),
        };
        let of_class = |(class, of): (usize, &ColumnClass)| -> Vec<u64> {
            let keys = key_rows(sequence);
            let tiles = self.class_tiles(class, owned, &keys);
            let of_tile = |members: Range<usize>| {
                let [first, last] = [members.start, members.end - 1]
                    .map(|member| self.column(class, member as i64));
                let of_interval = |(min, max): &Interval| {
                    let from = queries.start.max(first + min);
                    let end = queries.end.min(last + max + 1);
                    if from < end {
                        visits(from as usize, end as usize) as u64
                    } else {
                        0
                    }
                };
                of.intervals.iter().flatten().map(of_interval).sum()
            };
            tiles.map(of_tile).collect()
        };
        self.classes.iter().enumerate().flat_map(of_class).collect()
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
