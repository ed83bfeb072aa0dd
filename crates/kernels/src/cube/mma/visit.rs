//! What is known of the visit at hand, and of the next.

use cubecl::prelude::*;

use crate::cube::walk::Distances;

/// A visit, or that there is none.
#[derive(CubeType)]
pub(super) struct Visit {
    /// Whether there is one.
    pub(super) any: bool,
    /// Whether all its pairs attend.
    pub(super) all: bool,
    /// The query head, counted in its group, where queries are visited.
    pub(super) head: i32,
    min: i32,
    max: i32,
    stride: i32,
    residue: i32,
    causal: bool,
    exact: bool,
}

#[cube]
pub(super) fn no_visit() -> Visit {
    Visit {
        any: false.runtime(),
        all: false.runtime(),
        head: 0i32.runtime(),
        min: 0i32.runtime(),
        max: 0i32.runtime(),
        stride: 1i32.runtime(),
        residue: 0i32.runtime(),
        causal: false.runtime(),
        exact: false.runtime(),
    }
}

#[cube]
impl Visit {
    pub(super) fn set(&mut self, any: bool, all: bool, head: i32, distances: &Distances) {
        self.any = any;
        self.all = all;
        self.head = head;
        self.min = distances.min;
        self.max = distances.max;
        self.stride = distances.stride;
        self.residue = distances.residue;
        self.causal = distances.causal;
        self.exact = distances.exact;
    }

    pub(super) fn distances(&self) -> Distances {
        Distances {
            min: self.min,
            max: self.max,
            stride: self.stride,
            residue: self.residue,
            causal: self.causal,
            exact: self.exact,
        }
    }
}

/// The place of the slot after that at `at`, of three of `rows` rows.
#[cube]
pub(super) fn next_of_three(at: usize, #[comptime] rows: usize) -> usize {
    select(at == comptime!(2 * rows), 0usize, at + rows)
}
