//! What multiplies tiles, and which elements of sums a unit holds.
//!
//! Of the sums of 16 rows a unit holds pairs of neighbouring elements, four for each 16 columns:
//!
//! - NVIDIA's products give unit `u` those of rows `u / 4` and `u / 4 + 8` in turn, of columns `2 (u % 4)` and the next, then of
//!   the same 8 further;
//! - AMD's give it those of row `u % 16` and columns `8 (u / 16) ..`, as they are computed here: see [`super::wmma`].

use std::fmt;

use cubecl::ir::features::MmaConfig;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
use cubecl::prelude::*;

/// How planes of 32 units multiply tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cube) enum Products {
    /// Each its own, `16 x 8` sums over a depth of 16: NVIDIA's GPUs. Those of four planes together, Hopper's, leave the same
    /// elements in the same units.
    Mma,
    /// Each its own, `16 x 16` sums over a depth of 16: AMD's GPUs from RDNA3 on.
    Wmma,
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Products::Mma => "16 x 8 x 16",
            Products::Wmma => "16 x 16 x 16",
        })
    }
}

impl Products {
    /// What a device has for one plane, or why it has nothing.
    pub(in crate::cube) fn of(
        properties: &DeviceProperties,
        dtype: ElemType,
    ) -> Result<Self, String> {
        let matmul = &properties.features.matmul;
        let has = |n| {
            matmul.mma.contains(&MmaConfig {
                a_type: dtype,
                b_type: dtype,
                cd_type: ElemType::Float(FloatKind::F32),
                m: 16,
                n,
                k: 16,
            })
        };
        if has(8) && matmul.ldmatrix.contains(&dtype) {
            Ok(Products::Mma)
        } else if has(8) {
            Err(format!("no matrix loads of {dtype:?} from shared memory"))
        } else if has(16) {
            Ok(Products::Wmma)
        } else {
            Err(format!(
                "no 16 x 8 x 16 or 16 x 16 x 16 product of {dtype:?} in hardware"
            ))
        }
    }

    /// Rows of a unit, where its plane has `parts` tiles of 16.
    pub(super) fn rows(self, parts: usize) -> usize {
        match self {
            Products::Mma => 2 * parts,
            Products::Wmma => parts,
        }
    }

    /// Pairs of each of them in sums of `tiles` tiles of 8 columns.
    pub(super) fn row_pairs(self, tiles: usize) -> usize {
        match self {
            Products::Mma => tiles,
            Products::Wmma => 2 * tiles,
        }
    }

    /// Which pair is the `n`-th of row `row`.
    pub(super) fn pair_of(self, row: usize, n: usize, tiles: usize) -> usize {
        match self {
            Products::Mma => 2 * (row / 2 * tiles + n) + row % 2,
            Products::Wmma => 2 * row * tiles + n,
        }
    }

    /// The row of a pair.
    pub(super) fn row_of(self, pair: usize, tiles: usize) -> usize {
        match self {
            Products::Mma => pair / (2 * tiles) * 2 + pair % 2,
            Products::Wmma => pair / (2 * tiles),
        }
    }

    /// The column of element `e` of a pair, counted from [`first_column`].
    pub(super) fn column_of(self, pair: usize, e: usize, tiles: usize) -> usize {
        let n = pair % (2 * tiles);
        match self {
            Products::Mma => n / 2 * 8 + e,
            Products::Wmma => n / 4 * 16 + n % 4 * 2 + e,
        }
    }
}

/// The row of this unit's row `row`, counted over the `parts` tiles of each plane.
#[cube]
pub(super) fn own_row(
    #[comptime] row: usize,
    #[comptime] parts: usize,
    #[comptime] products: Products,
) -> u32 {
    let first = UNIT_POS / 32u32 * comptime!(16 * parts as u32);
    if comptime!(products == Products::Wmma) {
        first + UNIT_POS % 16u32 + comptime!(16 * row as u32)
    } else {
        first + UNIT_POS % 32u32 / 4u32 + comptime!(8 * row as u32)
    }
}

/// Whether this unit is the first of those that share rows.
#[cube]
pub(super) fn is_first(#[comptime] products: Products) -> bool {
    if comptime!(products == Products::Wmma) {
        UNIT_POS % 32u32 < 16u32
    } else {
        UNIT_POS % 4u32 == 0u32
    }
}

/// The first column of which this unit has elements.
#[cube]
pub(super) fn first_column(#[comptime] products: Products) -> usize {
    if comptime!(products == Products::Wmma) {
        UNIT_POS as usize % 32usize / 16usize * 8usize
    } else {
        UNIT_POS as usize % 4usize * 2usize
    }
}

/// The column of this unit's element `n` of a row.
#[cube]
pub(super) fn column(n: u32, #[comptime] products: Products) -> u32 {
    if comptime!(products == Products::Wmma) {
        n / 8 * 16 + n % 8 + UNIT_POS % 32u32 / 16u32 * 8u32
    } else {
        n / 2 * 8 + n % 2 + UNIT_POS % 4u32 * 2u32
    }
}

/// The largest `x` of the units that share rows.
#[cube]
pub(in crate::cube) fn row_max(x: f32, #[comptime] products: Products) -> f32 {
    if comptime!(products == Products::Wmma) {
        max(x, plane_shuffle_xor(x, 16u32))
    } else {
        let y = max(x, plane_shuffle_xor(x, 1u32));
        max(y, plane_shuffle_xor(y, 2u32))
    }
}

/// The sum of the `x` of the units that share rows, the same for all of them.
#[cube]
pub(in crate::cube) fn row_sum(x: f32, #[comptime] products: Products) -> f32 {
    if comptime!(products == Products::Wmma) {
        x + plane_shuffle_xor(x, 16u32)
    } else {
        let y = x + plane_shuffle_xor(x, 1u32);
        y + plane_shuffle_xor(y, 2u32)
    }
}
