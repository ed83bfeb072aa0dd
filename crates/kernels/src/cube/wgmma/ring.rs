//! Rings of slots: a few units fill them, and all others work on them, each group when its slot is there.

use cubecl::prelude::*;

use super::groups::{ALL, NOTHING};
use super::instructions::{
    arrive, arrive_after_copies, arrive_as_plane, new_barrier, wait_for, writes_done,
};
use super::size::consumers;
use crate::cube::mma::intrinsics::shared_address;
use crate::cube::mma::visit::Visit;
use crate::cube::tile::Tile;
use crate::cube::walk::{Distances, Reach};

/// Words that describe a visit: bits, its own and those of [`groups`](super::groups), the head, and of visits of which not all attends
/// its distances and its first token.
pub(super) const VISIT: usize = 7;
const ANY: u32 = 1;
const CAUSAL: u32 = 2;
const EXACT: u32 = 4;
/// Masks are of ranges: see [`are_ranges`].
const RANGES: u32 = 8;
/// All pairs attend.
const COMPLETE: u32 = 16;

/// `bit` where it is `on`.
#[cube]
pub(super) fn bit(on: bool, #[comptime] bit: u32) -> u32 {
    select(on, bit, 0u32)
}

/// Whether masks of ranges are looked for. Tiles of one block have few visits with masks, and heads of 64 lose 2 % forward by a second
/// kind of mask in their loop.
pub(super) fn may_be_ranges(visited: Tile) -> bool {
    visited.slots() > 1
}

/// Whether masks of a visit are made without a look at its tokens: these follow one another, and what a row of the cube attends is a
/// range of them.
#[cube]
pub(super) fn are_ranges(distances: &Distances, reach: &Reach, #[comptime] visited: Tile) -> bool {
    comptime!(may_be_ranges(visited)).runtime()
        && reach.in_a_row(visited.rows)
        && distances.are_ranges(visited)
}

/// A place in the ring, and how often it has been reached: 0 or 1 by turns.
#[derive(CubeType, CubeTypeMut, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Turn {
    pub(super) slot: u32,
    phase: u32,
}

/// The first slot.
#[cube]
pub(super) fn first_turn() -> Turn {
    Turn {
        slot: 0u32.runtime(),
        phase: 0u32.runtime(),
    }
}

#[cube]
impl Turn {
    /// The turn after this.
    pub(super) fn next(&self, #[comptime] slots: usize) -> Turn {
        let last = self.slot == comptime!(slots as u32 - 1);
        Turn {
            slot: select(last, 0u32, self.slot + 1u32),
            phase: select(last, self.phase ^ 1u32, self.phase),
        }
    }

    /// The turn, which all units of a plane have in common: the compiler does not see that after a loop.
    pub(super) fn of_plane(&self) -> Turn {
        Turn {
            slot: plane_broadcast(self.slot, 0u32),
            phase: plane_broadcast(self.phase, 0u32),
        }
    }
}

/// Units for which one says that they are done with a slot: those of its plane. `compute-sanitizer`'s racecheck does not follow that;
/// for it each speaks for itself.
const SPEAKS_FOR: usize = if cfg!(feature = "racecheck") { 1 } else { 32 };

/// Words that say what is in the slots, and barriers that say whether these are full or free.
#[derive(CubeType)]
pub(super) struct Ring {
    words: Shared<[u32]>,
    barriers: u32,
    /// Words of a slot.
    #[cube(comptime)]
    size: usize,
    #[cube(comptime)]
    pub(super) slots: usize,
    /// Parts of a slot that are filled and freed each on their own.
    #[cube(comptime)]
    pub(super) parts: usize,
}

/// An empty ring, which units may use after the next barrier of the cube. `fillers` units fill each slot, and it has as many consumers as
/// a cube of `rows` rows.
///
/// A slot has one part, or two: keys, with what is said of the visit, and values.
#[cube]
pub(super) fn ring(
    #[comptime] slots: usize,
    #[comptime] parts: usize,
    #[comptime] size: usize,
    #[comptime] rows: usize,
    #[comptime] fillers: usize,
) -> Ring {
    let barriers = Shared::<[u64]>::new_slice(comptime!(2 * parts * slots));
    let barriers = shared_address(&barriers[0usize..1usize]);
    if UNIT_POS == 0u32 {
        #[unroll]
        for at in 0..comptime!(parts * slots) {
            let (part, slot) = comptime!((at / slots, at % slots));
            new_barrier(
                barriers + comptime!(8 * (2 * part * slots + slot) as u32),
                comptime!(2 * fillers),
            );
            new_barrier(
                barriers + comptime!(8 * (2 * part * slots + slots + slot) as u32),
                comptime!(consumers(rows) / SPEAKS_FOR),
            );
        }
    }
    Ring {
        words: Shared::<[u32]>::new_slice(comptime!(slots * size)),
        barriers,
        size,
        slots,
        parts,
    }
}

/// The bits of a visit of rows that reach as far as `reach`, of which groups attend what the bits `attending` say.
#[cube]
pub(super) fn visit_bits(
    visit: &Visit,
    reach: &Reach,
    attending: u32,
    #[comptime] visited: Tile,
) -> u32 {
    let distances = visit.distances;
    attending
        | bit(visit.any, ANY)
        | bit(distances.causal, CAUSAL)
        | bit(distances.exact, EXACT)
        | bit(are_ranges(&distances, reach, visited), RANGES)
        | bit(visit.all, COMPLETE)
}

/// Whether masks of the visit that has these bits ask for the tokens of its rows.
#[cube]
pub(super) fn asks_for_tokens(bits: u32) -> bool {
    is_visit(bits) && bits & comptime!(COMPLETE | RANGES) == 0u32
}

/// Whether there is a visit that has these bits, or none is left.
#[cube]
pub(super) fn is_visit(bits: u32) -> bool {
    bits & ANY != 0u32
}

/// Whether all pairs of the visit that has these bits attend that have the rows of a group.
#[cube]
pub(super) fn all_of(bits: u32, group: u32) -> bool {
    bits & (ALL << group) != 0u32
}

/// Whether masks of the visit that has these bits are of ranges: see [`are_ranges`].
#[cube]
pub(super) fn has_ranges(bits: u32) -> bool {
    bits & RANGES != 0u32
}

/// Whether no pair of the visit that has these bits attends that has the rows of a group.
#[cube]
pub(super) fn nothing_of(bits: u32, group: u32) -> bool {
    bits & (NOTHING << group) != 0u32
}

#[cube]
impl Ring {
    fn full(&self, turn: &Turn, #[comptime] part: usize) -> u32 {
        self.barriers + comptime!(16 * (part * self.slots) as u32) + turn.slot * 8u32
    }

    fn free(&self, turn: &Turn, #[comptime] part: usize) -> u32 {
        self.full(turn, part) + comptime!(8 * self.slots as u32)
    }

    /// The part that is used last.
    fn last(&self) -> comptime_type!(usize) {
        comptime!(self.parts - 1)
    }

    /// Sets a word of a slot.
    pub(super) fn put(&mut self, turn: &Turn, #[comptime] word: usize, value: i32) {
        self.words[turn.slot as usize * self.size + word] = u32::cast_from(value);
    }

    /// A word of a slot.
    pub(super) fn word(&self, turn: &Turn, #[comptime] word: usize) -> i32 {
        i32::cast_from(self.words[turn.slot as usize * self.size + word])
    }

    /// Sets word `n` of those after what is said of a visit.
    pub(super) fn put_more(&mut self, turn: &Turn, n: usize, value: u32) {
        self.words[turn.slot as usize * self.size + VISIT + n] = value;
    }

    /// Word `n` of those after what is said of a visit.
    pub(super) fn more(&self, turn: &Turn, n: usize) -> u32 {
        self.words[turn.slot as usize * self.size + VISIT + n]
    }

    /// Waits until nobody uses the slot, or the keys of it, any longer.
    pub(super) fn wait_until_free(&self, turn: &Turn) {
        wait_for(self.free(turn, 0usize), turn.phase ^ 1u32);
    }

    /// Describes the visit of a slot, which has these bits, to those who work on it: by one unit.
    pub(super) fn describe(
        &mut self,
        turn: &Turn,
        bits: u32,
        head: i32,
        distances: &Distances,
        first_token: i32,
    ) {
        self.put(turn, 0usize, i32::cast_from(bits));
        self.put(turn, 1usize, head);
        if bits & COMPLETE == 0u32 {
            self.put(turn, 2usize, distances.min);
            self.put(turn, 3usize, distances.max);
            self.put(turn, 4usize, distances.stride);
            self.put(turn, 5usize, distances.residue);
            self.put(turn, 6usize, first_token);
        }
    }

    /// Between keys and values, where these have parts of their own: says that the keys of a slot are there, as [`Self::fill`] does,
    /// and waits until nobody uses its values any longer.
    pub(super) fn fill_keys(&self, turn: &Turn) {
        if comptime!(self.parts > 1) {
            self.fill_part(turn, 0usize);
            wait_for(self.free(turn, 1usize), turn.phase ^ 1u32);
        }
    }

    /// Says that a slot is full, as far as this unit fills it, once all of its copies are there.
    pub(super) fn fill(&self, turn: &Turn) {
        let part = self.last();
        self.fill_part(turn, part);
    }

    fn fill_part(&self, turn: &Turn, #[comptime] part: usize) {
        arrive_after_copies(self.full(turn, part));
        arrive(self.full(turn, part));
    }

    fn bits(&self, turn: &Turn) -> u32 {
        self.words[turn.slot as usize * self.size]
    }

    /// Waits until a slot is full, or the keys of it.
    pub(super) fn wait(&self, turn: &Turn) {
        self.wait_for_part(turn, 0usize);
    }

    /// Waits until the values of a slot are there, where they have a part of their own.
    pub(super) fn wait_for_values(&self, turn: &Turn) {
        if comptime!(self.parts > 1) {
            self.wait_for_part(turn, 1usize);
        }
    }

    fn wait_for_part(&self, turn: &Turn, #[comptime] part: usize) {
        wait_for(self.full(turn, part), turn.phase);
        writes_done();
    }

    /// Waits until a slot is full. The bits of its visit, for [`is_visit`] and what is asked of bits beside it.
    pub(super) fn wait_for_bits(&self, turn: &Turn) -> u32 {
        self.wait(turn);
        self.bits(turn)
    }

    /// Says that this plane no longer uses the keys of a slot nor what is said of the visit, where values have a part of their own.
    pub(super) fn done_with_keys(&self, turn: &Turn) {
        if comptime!(self.parts > 1) {
            self.done_with_part(turn, 0usize);
        }
    }

    /// Says that this plane no longer uses a slot.
    pub(super) fn done(&self, turn: &Turn) {
        let part = self.last();
        self.done_with_part(turn, part);
    }

    fn done_with_part(&self, turn: &Turn, #[comptime] part: usize) {
        let free = self.free(turn, part);
        if comptime!(SPEAKS_FOR == 1) {
            arrive(free);
        } else {
            arrive_as_plane(free);
        }
    }

    /// The first token of a visit.
    pub(super) fn first_token(&self, turn: &Turn) -> i32 {
        self.word(turn, 6usize)
    }

    /// The query head of a visit, counted in its group.
    pub(super) fn head(&self, turn: &Turn) -> i32 {
        self.word(turn, 1usize)
    }

    /// The distances that a visit covers which has these bits.
    pub(super) fn distances(&self, turn: &Turn, bits: u32) -> Distances {
        Distances {
            min: self.word(turn, 2usize),
            max: self.word(turn, 3usize),
            stride: self.word(turn, 4usize),
            residue: self.word(turn, 5usize),
            causal: bits & CAUSAL != 0u32,
            exact: bits & EXACT != 0u32,
        }
    }
}
