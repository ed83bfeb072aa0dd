//! The visits that a group works on together: what takes time once is shared, and products are longer.

use cubecl::prelude::*;

use super::ring::{Ring, Turn, first_turn};

/// One visit or two that follow each other. After an odd number of them, the last is of a tile of which nothing attends.
#[derive(CubeType, CubeTypeMut, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Step {
    pub(super) first: Turn,
    pub(super) second: Turn,
    /// Whether others may follow.
    goes_on: bool,
}

/// The first step, once its slots are full. Whether there is one.
#[cube]
pub(super) fn first_step(ring: &Ring, #[comptime] together: usize) -> (Step, bool) {
    let first = first_turn();
    let any = ring.wait_until_full(&first);
    let step = Step {
        first,
        second: first.next(ring.slots),
        goes_on: any,
    };
    (step.filled(ring, together), any)
}

#[cube]
impl Step {
    /// This, once all of its slots are full. The first is.
    fn filled(&self, ring: &Ring, #[comptime] together: usize) -> Step {
        let mut goes_on = self.goes_on;
        if comptime!(together == 2) {
            if goes_on {
                goes_on = ring.wait_until_full(&self.second);
            }
        }
        Step {
            first: self.first,
            second: self.second,
            goes_on,
        }
    }

    /// The step after this, once its slots are full. Whether there is one.
    pub(super) fn next(&self, ring: &Ring, #[comptime] together: usize) -> (Step, bool) {
        let first = if comptime!(together == 2) {
            self.second.next(ring.slots)
        } else {
            self.second
        };
        let mut any = self.goes_on;
        if any {
            any = ring.wait_until_full(&first);
        }
        let step = Step {
            first,
            second: first.next(ring.slots),
            goes_on: any,
        };
        (step.filled(ring, together), any)
    }

    /// Says that this plane no longer uses the slots.
    pub(super) fn done(&self, ring: &Ring, #[comptime] together: usize) {
        ring.done(&self.first);
        if comptime!(together == 2) {
            ring.done(&self.second);
        }
    }
}
