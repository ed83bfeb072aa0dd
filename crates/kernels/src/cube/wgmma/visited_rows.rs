//! What dK and dV know of the queries that they visit: their tokens, and of each column of a product its lse and `D`.

use cubecl::prelude::*;

use super::instructions::load_pair;
use crate::cube::mma::fragments::Pair;
use crate::cube::mma::intrinsics::shared_address;
use crate::cube::mma::keys::{VisitedRow, VisitedTokens, visited_tokens};
use crate::cube::tile::Tile;

/// Of the rows of all slots.
#[derive(CubeType)]
pub(super) struct VisitedRows {
    pub(super) tokens: VisitedTokens,
    /// Of each row of a slot the lse to base 2, then of each `D`: two that follow one another are read together.
    stats: Shared<[f32]>,
    address: u32,
    #[cube(comptime)]
    rows: usize,
}

/// Of `slots` slots of `rows` rows.
#[cube]
pub(super) fn visited_rows(#[comptime] slots: usize, #[comptime] rows: usize) -> VisitedRows {
    let stats = Shared::<[f32]>::new_aligned_slice(comptime!(2 * slots * rows), 16usize);
    let address = shared_address(&stats[0usize..1usize]);
    VisitedRows {
        tokens: visited_tokens(comptime!(slots * rows)),
        stats,
        address,
        rows,
    }
}

#[cube]
impl VisitedRows {
    /// Sets row `unit` of a slot, where there is one.
    pub(super) fn set(
        &mut self,
        slot: u32,
        row: &VisitedRow,
        unit: u32,
        #[comptime] visited: Tile,
    ) {
        if unit < comptime!(visited.rows as u32) {
            let first = slot as usize * comptime!(visited.rows);
            let unit = unit as usize;
            self.tokens.set(first + unit, row.token);
            let at = 2 * first + unit;
            self.stats[at] = row.stats.lse * f32::new(core::f32::consts::LOG2_E);
            self.stats[at + comptime!(visited.rows)] = row.stats.d;
        }
    }

    /// The lse to base 2 of this unit's columns of a slot, two of each tile of 8.
    pub(super) fn lse(&self, slot: u32) -> Array<Pair<f32>> {
        self.columns(slot, 0usize)
    }

    /// `D` of the same.
    pub(super) fn d(&self, slot: u32) -> Array<Pair<f32>> {
        self.columns(slot, 1usize)
    }

    fn columns(&self, slot: u32, #[comptime] of: usize) -> Array<Pair<f32>> {
        let (rows, tiles) = comptime!((self.rows, self.rows / 8));
        let first = self.address + slot * comptime!(8 * rows as u32) + UNIT_POS % 4u32 * 8u32;
        let mut columns = Array::<Pair<f32>>::new(tiles);
        #[unroll]
        for tile in 0..tiles {
            columns[tile] = load_pair(first, comptime!(4 * of * rows + 32 * tile));
        }
        columns
    }
}
