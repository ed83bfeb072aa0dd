//! How a cube of the unit engine is laid out.

/// Elements of a vector.
pub(in crate::cube) const LANES: usize = 4;

/// The rows of a cube, and how its units share them.
///
/// Unit `u` holds the scores of owned rows `u / across + down * i` against visited rows `u % across + across * j`, and of
/// each of its owned rows every `across`-th vector of the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cube) struct CubeSize {
    /// Rows that a cube owns.
    pub(in crate::cube) owned: usize,
    /// Rows that it visits at a time.
    pub(in crate::cube) visited: usize,
    /// Units of a cube.
    pub(in crate::cube) units: usize,
    /// Units along the visited rows.
    pub(in crate::cube) across: usize,
    /// Whether rows are kept whole in shared memory, in place of slices of them in turn.
    pub(in crate::cube) whole: bool,
    /// Whether units that share rows are of one plane, and planes can be waited for.
    pub(in crate::cube) planes: bool,
}

/// Any device: 16 KiB of shared memory, what WebGPU promises.
pub(in crate::cube) const SLICES: CubeSize = CubeSize {
    owned: 64,
    visited: 32,
    units: 128,
    across: 8,
    whole: false,
    planes: false,
};

/// Devices with shared memory for whole rows.
pub(in crate::cube) const WHOLE: CubeSize = CubeSize {
    whole: true,
    ..SLICES
};

/// Vectors of the slices that are staged at a time.
const STAGE: usize = (SLICES.owned + SLICES.visited) * 5;

impl CubeSize {
    /// Units along the owned rows.
    pub(super) fn down(&self) -> usize {
        self.units / self.across
    }

    /// Owned rows of a unit.
    pub(super) fn rows(&self) -> usize {
        self.owned / self.down()
    }

    /// Visited rows of a unit.
    pub(super) fn columns(&self) -> usize {
        self.visited / self.across
    }

    /// Scores of a unit.
    pub(super) fn scores(&self) -> usize {
        self.rows() * self.columns()
    }

    /// Vectors of an accumulator's row that a unit holds.
    pub(super) fn held(&self, dim: usize) -> usize {
        (dim / LANES).div_ceil(self.across)
    }

    /// Vectors of a row that are staged at a time: sums are over whole slices.
    pub(super) fn slice(&self, dim: usize) -> usize {
        match (self.whole, dim % 16) {
            (true, _) => dim / LANES,
            (false, 0) => 4,
            (false, _) => 2,
        }
    }

    /// Vectors from a staged row to the next: one more than a slice, against bank conflicts.
    pub(super) fn stride(&self, dim: usize) -> usize {
        self.slice(dim) + 1
    }

    /// Vectors that a unit stages of each slice of `rows` rows.
    pub(super) fn staged(&self, rows: usize, dim: usize) -> usize {
        (rows * self.slice(dim)).div_ceil(self.units)
    }

    /// Visited rows that [`accumulate`](super::scratch::Scratch::accumulate) sees at a time where rows are not staged
    /// whole.
    pub(super) fn seen(&self, dim: usize) -> usize {
        let fits = STAGE / (dim / LANES);
        (1..=self.visited)
            .rev()
            .find(|rows| *rows <= fits && self.visited % rows == 0)
            .unwrap_or(1)
    }

    /// Weights of a row, one more against bank conflicts.
    pub(super) fn weight_stride(&self) -> usize {
        self.visited + 1
    }

    /// Where the rows of an operand are in the staging area, in vectors: owned or visited.
    pub(super) fn place(
        &self,
        operand: usize,
        visited: bool,
        dims: [usize; 2],
        owns: usize,
    ) -> usize {
        if !self.whole {
            // Slices of one operand at a time.
            return if visited {
                self.owned * self.stride(dims[operand])
            } else {
                0
            };
        }
        let strides = |operands: usize| {
            dims[..operands]
                .iter()
                .map(|dim| self.stride(*dim))
                .sum::<usize>()
        };
        if visited {
            self.owned * strides(owns) + self.visited * strides(operand)
        } else {
            self.owned * strides(operand)
        }
    }

    /// Vectors of the staging area of a kernel that owns rows of the first `owns` operands.
    pub(super) fn stage(&self, dims: [usize; 2], owns: usize) -> usize {
        if self.whole {
            self.place(1, true, dims, owns) + self.visited * self.stride(dims[1])
        } else {
            STAGE
        }
    }

    /// Bytes of shared memory of such a kernel.
    pub(in crate::cube) fn shared_bytes(&self, dims: [usize; 2], owns: usize) -> usize {
        let words =
            self.stage(dims, owns) * LANES + self.owned * self.weight_stride() + self.visited;
        words * 4
    }
}
