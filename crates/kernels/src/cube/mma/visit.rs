//! The visits of a cube, one after another.
//!
//! While a visit is worked on, the rows of the next are on their way, and the tokens of those after them are looked up.

use cubecl::prelude::*;

use crate::cube::walk::{Distances, no_visits};

/// A visit, or that there is none.
#[derive(CubeType, CubeTypeMut, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Visit {
    /// Whether there is one.
    pub(in crate::cube) any: bool,
    /// Whether all its pairs attend.
    pub(in crate::cube) all: bool,
    /// The query head, counted in its group, where queries are visited.
    pub(in crate::cube) head: i32,
    pub(in crate::cube) distances: Distances,
}

/// The visit at hand, the next, and where their rows are: in one of two slots, their tokens in one of three.
#[derive(CubeType)]
pub(in crate::cube) struct Pipeline {
    pub(in crate::cube) visit: Visit,
    pub(in crate::cube) next: Visit,
    /// The first row of this visit's slot.
    pub(in crate::cube) slot: usize,
    /// The first row of its tokens.
    pub(in crate::cube) tokens: usize,
    #[cube(comptime)]
    rows: usize,
}

/// Before the first visit of `rows` rows.
#[cube]
pub(in crate::cube) fn pipeline(#[comptime] rows: usize) -> Pipeline {
    let none = Visit {
        any: false.runtime(),
        all: false.runtime(),
        head: 0i32.runtime(),
        distances: no_visits().distances,
    };
    Pipeline {
        visit: none,
        next: none,
        slot: 0usize.runtime(),
        tokens: 0usize.runtime(),
        rows,
    }
}

#[cube]
impl Pipeline {
    /// The slot of the next visit.
    pub(in crate::cube) fn next_slot(&self) -> usize {
        self.rows - self.slot
    }

    /// The place of the next visit's tokens.
    pub(in crate::cube) fn next_tokens(&self) -> usize {
        self.after(self.tokens)
    }

    /// The place of the tokens of the visit after the next.
    pub(in crate::cube) fn later_tokens(&self) -> usize {
        self.after(self.next_tokens())
    }

    fn after(&self, tokens: usize) -> usize {
        let rows = comptime!(self.rows);
        select(tokens == comptime!(2 * rows), 0usize, tokens + rows)
    }

    /// Goes on to the next visit, after which comes `later`.
    pub(in crate::cube) fn turn(&mut self, later: Visit) {
        self.slot = self.next_slot();
        self.tokens = self.next_tokens();
        self.visit = self.next;
        self.next = later;
    }
}
