//! What the passes of the gradients keep for each other: dS, which dK and dV compute, for dQ.
//!
//! dQ has then one product for each pair in place of three. dS takes two bytes a pair, so that heads are taken some at a time where all
//! of them would take more than [`Keep::budget`] says; and where one does, dQ computes dS again.

use std::ops::Range;

use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::Handle;
use s2_attention_pattern::{Anchor, Band};

use super::columns::reachable;
use super::error::CubeError;
use super::index::{clip, query_rows};
use super::tile::Tile;
use super::wgmma::size::VISITED;
use crate::{AttentionProblem, AttentionShape, Sequence};

/// Queries, and keys, of a chunk.
pub(super) const CHUNK: usize = 16;

/// Most bands of a head whose dS are kept: units look at them one by one.
pub(super) const MOST_BANDS: usize = 4;

/// Where the dS of a call are kept, of tiles of queries that visit tiles of keys.
///
/// On the device these are words: for each sequence the number of tiles before its own; then for each head, tile and band the number of
/// visits before its own, and what is to be taken from the number of a key's block among the columns of the band, so that the first
/// visited is 0: of large blocks from that of its part.
pub(super) struct Kept {
    words: Handle,
    len: usize,
    /// Tiles of queries of all sequences.
    pub(super) tiles: usize,
    /// Bands that there are words for: of the head that has most.
    pub(super) bands: usize,
    /// Visits before those of each head, and of all.
    before: Vec<usize>,
    /// Bytes of a visit.
    visit: usize,
}

impl Kept {
    /// Of tiles `owned` that visit tiles `visited`; `None` as [`KeptPlan::new`] says.
    pub(super) fn new(
        client: &Client,
        problem: &AttentionProblem,
        owned: Tile,
        visited: Tile,
    ) -> Option<Self> {
        let words = Words::new(problem, owned, visited)?;
        Some(Self {
            words: client.create_from_slice(u32::as_bytes(&words.words)),
            len: words.words.len(),
            tiles: words.tiles,
            bands: words.bands,
            before: words.before,
            visit: owned.rows * visited.rows * 2,
        })
    }

    pub(super) fn arg(&self) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(self.words.clone(), self.len) }
    }

    /// Visits before those of a head.
    pub(super) fn first(&self, head: usize) -> u32 {
        self.before[head] as u32
    }

    /// Visits of some heads.
    fn visits(&self, heads: &Range<usize>) -> usize {
        self.before[heads.end] - self.before[heads.start]
    }

    /// Bytes of the dS of some heads.
    pub(super) fn bytes(&self, heads: &Range<usize>) -> usize {
        self.visits(heads) * self.visit
    }

    /// Key/value heads whose dS are kept at a time, within `budget` bytes; `None` where one takes more.
    pub(super) fn parts(&self, shape: &AttentionShape, budget: usize) -> Option<Vec<Range<usize>>> {
        let group = shape.num_heads / shape.num_kv_heads;
        let bytes = |heads: &Range<usize>| self.bytes(&query_heads(heads, group));
        (1..=shape.num_kv_heads)
            .map(|parts| divided(shape.num_kv_heads, parts))
            .find(|parts| parts.iter().all(|heads| bytes(heads) <= budget))
    }
}

/// `heads` in so many parts, none of two heads more than another: one of few heads would leave processors idle.
fn divided(heads: usize, parts: usize) -> Vec<Range<usize>> {
    (0..parts)
        .map(|part| part * heads / parts..(part + 1) * heads / parts)
        .collect()
}

/// Whether dK and dV of some heads, with so many `visits`, take `processors` processors about as long as their heaviest tile may take one,
/// which all queries of a group attend: else most would wait for that, in each part.
fn keep_busy(problem: &AttentionProblem, visits: usize, processors: usize) -> bool {
    let shape = problem.shape();
    let lengths = problem.sequences().iter().map(|of| of.span.q_len);
    let heaviest =
        shape.num_heads / shape.num_kv_heads * lengths.max().unwrap_or(0).div_ceil(VISITED);
    10 * visits >= 9 * processors * heaviest
}

/// The query heads of some key/value heads, `group` each.
fn query_heads(kv_heads: &Range<usize>, group: usize) -> Range<usize> {
    kv_heads.start * group..kv_heads.end * group
}

/// What is kept of a call, and when.
pub(super) struct KeptPlan {
    pub(super) kept: Kept,
    /// Key/value heads at a time.
    pub(super) parts: Vec<Range<usize>>,
}

impl KeptPlan {
    /// Of tiles `owned` that visit tiles `visited`, within `budget` bytes; `None` where chunks would not be of one block, a head has too many
    /// bands or one on a diagonal, one key/value head takes more, or, unless `any_parts` will do, as
    /// many as fit keep few processors busy.
    pub(super) fn new(
        client: &Client,
        problem: &AttentionProblem,
        owned: Tile,
        visited: Tile,
        budget: usize,
        any_parts: bool,
    ) -> Option<Self> {
        let kept = Kept::new(client, problem, owned, visited)?;
        let parts = kept.parts(problem.shape(), budget)?;
        let hardware = &client.properties().hardware;
        let processors = hardware.num_streaming_multiprocessors.unwrap_or(0) as usize;
        let group = problem.shape().num_heads / problem.shape().num_kv_heads;
        let visits = |part| kept.visits(&query_heads(part, group));
        let fewest = parts.iter().map(visits).min().unwrap_or(0);
        let pays = any_parts || parts.len() == 1 || keep_busy(problem, fewest, processors);
        pays.then_some(Self { kept, parts })
    }

    /// Bytes that are kept at a time, where key/value heads have `group` query heads each.
    pub(super) fn bytes(&self, group: usize) -> usize {
        let bytes = |part| self.kept.bytes(&query_heads(part, group));
        let bytes = self.parts.iter().map(bytes).max();
        bytes.unwrap_or(0).max(16)
    }
}

/// Some key/value heads, and where their dS are kept.
pub(super) struct KeptPart<'a> {
    pub(super) kept: &'a Kept,
    pub(super) scores: &'a Handle,
    pub(super) kv_heads: Range<usize>,
}

impl KeptPart<'_> {
    /// Their query heads, `group` each.
    pub(super) fn heads(&self, group: usize) -> Range<usize> {
        query_heads(&self.kv_heads, group)
    }

    pub(super) fn scores_arg(&self) -> BufferArg {
        let words = self.scores.size_in_used() as usize / 16;
        unsafe { BufferArg::from_raw_parts(self.scores.clone(), words) }
    }
}

/// Whether dS is kept, as `S2_KEEP` in the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Where it pays: narrow heads compute it as fast as they read it.
    Wide,
    Never,
    Always,
    /// Of all heads, at most so many bytes at a time.
    Within(usize),
}

impl Keep {
    const VARIABLE: &str = "S2_KEEP";

    /// # Errors
    /// [`CubeError::Variable`] for what says nothing.
    pub(super) fn of_environment() -> Result<Self, CubeError> {
        match std::env::var_os(Self::VARIABLE) {
            None => Ok(Self::Wide),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> Result<Self, CubeError> {
        let mebibytes = |value: &str| {
            let digits = value.strip_suffix("MiB")?;
            let all = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<usize>().ok().filter(|_| all)
        };
        match value {
            "0" => Ok(Self::Never),
            "1" => Ok(Self::Always),
            _ => mebibytes(value)
                .and_then(|count| count.checked_mul(1 << 20))
                .map(Self::Within)
                .ok_or_else(|| CubeError::Variable {
                    name: Self::VARIABLE,
                    seen: value.to_owned(),
                    accepted: "0, 1, or the most that is kept at a time, as in 512MiB",
                }),
        }
    }

    /// Bytes of dS that are kept at a time, where it is kept: twice those of what the gradients read and write, unless it says
    /// otherwise.
    pub(super) fn budget(self, shape: &AttentionShape, element: usize) -> Option<usize> {
        let tokens = shape.num_heads * shape.seq_q + shape.num_kv_heads * shape.seq_kv;
        // Queries, results, keys and values, and the gradient of each.
        let operands = 2 * shape.batch * tokens * (shape.head_dim + shape.value_dim) * element;
        match self {
            Self::Wide => (shape.head_dim > 64).then_some(2 * operands),
            Self::Never => None,
            Self::Always => Some(2 * operands),
            Self::Within(bytes) => Some(bytes),
        }
    }
}

/// What is kept, in words.
pub(super) fn explain_kept(shape: &AttentionShape, plan: Option<&KeptPlan>) -> String {
    match plan {
        Some(plan) => format!(
            "s2-attention: dS is kept for dQ, {} bytes at a time for at most {} of {} key/value heads",
            plan.bytes(shape.num_heads / shape.num_kv_heads),
            plan.parts.iter().map(Range::len).max().unwrap_or(0),
            shape.num_kv_heads
        ),
        None => "s2-attention: dQ computes dS again".to_owned(),
    }
}

/// Whether dS may be kept: each chunk is of one block, and tiles begin at multiples of their rows.
pub(super) fn keeps_scores(owned: Tile, visited: Tile) -> bool {
    let divide =
        |tile: Tile| tile.rows.is_multiple_of(tile.block) || tile.block.is_multiple_of(tile.rows);
    !owned.table && owned.block.is_multiple_of(CHUNK) && divide(owned) && divide(visited)
}

/// [`Kept`] on the host.
struct Words {
    words: Vec<u32>,
    tiles: usize,
    bands: usize,
    before: Vec<usize>,
}

impl Words {
    fn new(problem: &AttentionProblem, owned: Tile, visited: Tile) -> Option<Self> {
        if !keeps_scores(owned, visited) {
            return None;
        }
        let pattern = problem.pattern();
        let sequences = problem.sequences();
        let mut tiles = 0;
        let mut words: Vec<u32> = Vec::new();
        for sequence in sequences {
            words.push(u32::try_from(tiles).ok()?);
            tiles += owned.tiles(query_rows(sequence));
        }
        let of_heads = (0..pattern.num_heads())
            .map(|head| pattern.head(head).bands().map(reachable))
            .collect::<Option<Vec<_>>>()?;
        let diagonal = |band: &Band| band.anchor == Anchor::Diagonal && band.stride > 1;
        let bands = of_heads.iter().map(Vec::len).max().unwrap_or(0);
        if bands > MOST_BANDS || of_heads.iter().flatten().any(diagonal) {
            return None;
        }
        let mut visits = 0;
        let mut before = Vec::new();
        for of_head in &of_heads {
            before.push(visits);
            for sequence in sequences {
                for number in 0..owned.tiles(query_rows(sequence)) {
                    let tile = TileOf::new(sequence, number, owned);
                    for band in 0..bands {
                        let list = of_head
                            .get(band)
                            .zip(tile.as_ref())
                            .and_then(|(band, tile)| tile.list(band, visited));
                        let (first, count) = list.unwrap_or((0, 0));
                        words.extend([u32::try_from(visits).ok()?, first]);
                        visits += count;
                    }
                }
            }
        }
        before.push(visits);
        // Chunks are counted too.
        u32::try_from(visits * owned.rows / CHUNK * visited.rows / CHUNK).ok()?;
        Some(Self {
            words,
            tiles,
            bands,
            before,
        })
    }
}

/// The blocks of a tile of queries, of a sequence that has keys.
struct TileOf<'a> {
    sequence: &'a Sequence,
    first: i64,
    last: i64,
}

impl<'a> TileOf<'a> {
    /// Tile `number`, counted from the first of its sequence; `None` where it holds no query.
    fn new(sequence: &'a Sequence, number: usize, owned: Tile) -> Option<Self> {
        let span = sequence.span;
        let q_end = span.q_start + span.q_len;
        let position = (span.q_start / owned.rows + number) * owned.rows;
        let first = (position / owned.block).max(span.q_start / owned.block);
        let end = (position / owned.block + owned.slots()).min(q_end.div_ceil(owned.block));
        let some = first < end && position < q_end && span.q_len > 0 && span.kv_len > 0;
        some.then_some(Self {
            sequence,
            first: first as i64,
            last: end as i64 - 1,
        })
    }

    /// Of the blocks that it visits for a band, the first, as [`Kept`] says, and the number of visits: those of `RowWalk::visits`.
    fn list(&self, band: &Band, visited: Tile) -> Option<(u32, usize)> {
        let (span, block) = (self.sequence.span, visited.block);
        let kv_end = span.kv_start + span.kv_len;
        let bounds = [
            band.min_distance,
            band.max_distance,
            band.column_start,
            band.column_end,
        ];
        let [min, max, start, end] = bounds.map(|bound| i64::from(clip(bound)));
        let key_first = (span.kv_start / block) as i64;
        let key_end = kv_end.div_ceil(block) as i64;
        let low = key_first.max(start).max(self.first - max);
        let high = key_end.min(end).min(self.last - min + 1);
        let low = low + (band.residue - low).rem_euclid(band.stride);
        if low >= high {
            return None;
        }
        let more = (high - 1 - low) / band.stride;
        let number = ((low - band.residue) / band.stride) as usize;
        let count = more as usize + 1;
        if visited.parts() == 1 {
            return Some((number as u32, count.div_ceil(visited.slots())));
        }
        // Of large blocks at the ends of the keys, parts that hold none are not visited.
        let (low, high) = (low as usize, (low + more * band.stride) as usize);
        let skipped = span.kv_start.saturating_sub(low * block) / visited.rows;
        let tokens = (kv_end - high * block).min(block);
        let cut = visited.parts() - tokens.div_ceil(visited.rows);
        let first = number * visited.parts() + skipped;
        Some((first as u32, count * visited.parts() - skipped - cut))
    }
}

#[cfg(test)]
mod tests {
    use s2_attention_pattern::PatternConfig;

    use super::*;

    #[test]
    fn what_the_environment_says_is_taken_or_refused() {
        assert_eq!(Keep::parse("0"), Ok(Keep::Never));
        assert_eq!(Keep::parse("1"), Ok(Keep::Always));
        assert_eq!(Keep::parse("3MiB"), Ok(Keep::Within(3 << 20)));
        for value in [
            "",
            "2",
            "yes",
            "MiB",
            "-1MiB",
            "+1MiB",
            "3 MiB",
            "99999999999999999999MiB",
        ] {
            let why = Keep::parse(value).unwrap_err().to_string();
            let expected = format!("S2_KEEP is \"{value}\"; accepted: 0, 1, or");
            assert!(why.starts_with(&expected), "{why}");
        }
    }

    /// Those that were timed on a device of 132 processors: one dense head at a time pays, four of 16 sparse ones do not.
    #[test]
    fn parts_that_leave_processors_idle_do_not_pay() {
        let tile = |rows, block| Tile {
            rows,
            block,
            table: false,
        };
        for (config, heads, pays) in [
            (PatternConfig::dense(64, 16), 1, true),
            (PatternConfig::local_stride(16, 16, 64, 16), 4, false),
            (PatternConfig::local_stride(16, 16, 64, 16), 16, true),
        ] {
            let pattern = config.build().unwrap();
            let shape = AttentionShape {
                batch: 1,
                num_heads: 16,
                num_kv_heads: 16,
                seq_q: 32768,
                seq_kv: 32768,
                head_dim: 128,
                value_dim: 128,
            };
            let problem = AttentionProblem::new(shape, &pattern, None, None).unwrap();
            let words = Words::new(&problem, tile(128, 64), tile(64, 64)).unwrap();
            assert_eq!(
                keep_busy(&problem, words.before[heads], 132),
                pays,
                "{config:?}, {heads} heads"
            );
        }
    }

    #[test]
    fn parts_are_of_about_as_many_heads() {
        assert_eq!(divided(16, 6), [0..2, 2..5, 5..8, 8..10, 10..13, 13..16]);
        for heads in 1..40 {
            for parts in 1..=heads {
                let divided = divided(heads, parts);
                let sizes = || divided.iter().map(Range::len);
                assert!(sizes().max() <= sizes().min().map(|fewest| fewest + 1));
                assert!(
                    divided.into_iter().flatten().eq(0..heads),
                    "{heads}, {parts}"
                );
            }
        }
    }

    #[test]
    fn budgets_follow_the_bytes_of_a_call() {
        let shape = |head_dim| AttentionShape {
            batch: 1,
            num_heads: 4,
            num_kv_heads: 2,
            seq_q: 100,
            seq_kv: 50,
            head_dim,
            value_dim: 64,
        };
        // Rows of all query and key/value heads.
        let rows = 4 * 100 + 2 * 50;
        let twice = |head_dim: usize| Some(2 * 2 * rows * (head_dim + 64) * 2);
        for (keep, narrow, wide) in [
            (Keep::Wide, None, twice(128)),
            (Keep::Never, None, None),
            (Keep::Always, twice(64), twice(128)),
            (Keep::Within(5), Some(5), Some(5)),
        ] {
            assert_eq!(keep.budget(&shape(64), 2), narrow, "{keep:?}");
            assert_eq!(keep.budget(&shape(128), 2), wide, "{keep:?}");
        }
    }
}
