//! What the passes of the gradients keep for each other: dS, which dK and dV compute, for dQ.
//!
//! dQ has then one product for each pair in place of three. dS takes two bytes a pair, so that heads are taken some at a time where all
//! of them take more than keeps processors busy, or than [`Keep::budget`](super::keep::Keep::budget) says; and where one does, dQ computes
//! dS again.

use std::ops::Range;

use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::Handle;
use s2_attention_pattern::{Anchor, Band};

use super::checks::processors;
use super::columns::reachable;
use super::index::{clip, query_rows};
use super::tile::Tile;
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
}

/// `heads` in so many parts, none of two heads more than another: one of few heads would leave processors idle.
fn divided(heads: usize, parts: usize) -> Vec<Range<usize>> {
    (0..parts)
        .map(|part| part * heads / parts..(part + 1) * heads / parts)
        .collect()
}

/// Visits for each processor that a part is to have: so many take far longer than its launches and what processors wait for at their
/// ends. More would take memory alone.
const ENOUGH: usize = 480;
/// Several parts of fewer are not worth it.
const FEWEST: usize = 240;

/// How `heads` key/value heads are divided, where some of them have so many bytes of dS and `visits`: in as many parts as have enough
/// to do for all `processors`, or as few as take no more than `budget` bytes. `None` where there is no such, or
/// where there are several that have too little. With `any`, always as few as fit.
fn parts(
    heads: usize,
    processors: usize,
    budget: usize,
    any: bool,
    bytes: impl Fn(&Range<usize>) -> usize,
    visits: impl Fn(&Range<usize>) -> usize,
) -> Option<Vec<Range<usize>>> {
    let fits = |parts: &Vec<Range<usize>>| parts.iter().all(|part| bytes(part) <= budget);
    let have = |parts: &Vec<Range<usize>>, each: usize| {
        parts.iter().all(|part| visits(part) >= each * processors)
    };
    let divisions = || (1..=heads).map(|parts| divided(heads, parts)).filter(fits);
    if any {
        return divisions().next();
    }
    let most = divisions().filter(|parts| have(parts, ENOUGH)).last();
    most.or_else(|| {
        divisions()
            .next()
            .filter(|parts| parts.len() == 1 || have(parts, FEWEST))
    })
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
    /// Of tiles `owned` that visit tiles `visited`, at most `budget` bytes at a time; `None` where chunks would not be of one block, a head
    /// has too many bands or one on a diagonal, one key/value head takes more, or, unless `any_parts` will do, several
    /// parts would have too little to do each.
    pub(super) fn new(
        client: &Client,
        problem: &AttentionProblem,
        owned: Tile,
        visited: Tile,
        budget: usize,
        any_parts: bool,
    ) -> Option<Self> {
        let kept = Kept::new(client, problem, owned, visited)?;
        let shape = problem.shape();
        let (kv_heads, group) = (shape.num_kv_heads, shape.num_heads / shape.num_kv_heads);
        let processors = processors(client.properties());
        let bytes = |part: &Range<usize>| kept.bytes(&query_heads(part, group));
        let visits = |part: &Range<usize>| kept.visits(&query_heads(part, group));
        let parts = parts(kv_heads, processors, budget, any_parts, bytes, visits)?;
        Some(Self { kept, parts })
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
    use super::*;

    #[test]
    fn parts_have_enough_to_do_and_no_more() {
        // Heads of so many visits for each of ten processors, and as many bytes.
        let of = |each: usize, heads, budget: usize, any| {
            let all = |part: &Range<usize>| 10 * each * part.len();
            let parts = parts(heads, 10, 10 * budget, any, all, all)?;
            Some(parts.iter().map(Range::len).collect::<Vec<_>>())
        };
        // As small as may be.
        assert_eq!(of(64, 16, 9999, false), Some(vec![8, 8]));
        assert_eq!(of(120, 16, 9999, false), Some(vec![4; 4]));
        assert_eq!(of(500, 4, 9999, false), Some(vec![1; 4]));
        assert_eq!(of(20, 16, 9999, false), Some(vec![16]));
        // As few as fit, where those are too many for that.
        assert_eq!(of(64, 16, 511, false), Some(vec![5, 5, 6]));
        assert_eq!(of(64, 16, 64 * 4, false), Some(vec![4; 4]));
        assert_eq!(of(64, 16, 64 * 3, false), None);
        assert_eq!(of(64, 16, 64 * 3, true), Some(vec![2, 3, 3, 2, 3, 3]));
        assert_eq!(of(64, 16, 63, true), None);
        assert_eq!(of(500, 16, 499, false), None);
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
}
