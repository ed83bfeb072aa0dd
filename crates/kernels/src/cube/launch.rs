//! What the launches of all engines share: arguments, grids, and the pass before the gradients.

use cubecl::client::Client;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::attention::CubeAttention;
use super::config::Config;
use super::error::CubeError;
use super::indexed::Indexed;
use super::round::Rounding;
use super::stats;
use super::tensors::{DeviceTensor, SavedOutputs};
use super::tile::Tile;
use super::vector_tensor::{VectorTensorArg, tensor_arg};

impl CubeAttention {
    /// lse and D of each query.
    pub(super) fn prepass(&self, saved: &SavedOutputs) -> Result<Handle, CubeError> {
        let shape = *self.problem.shape();
        let rows = self.rows();
        let filled = self.client.empty(2 * rows * size_of::<f32>());
        let rounding = saved.forward.rounding.as_ref().unwrap_or(&self.unused);
        let count = self.grid(stats::cubes(rows, shape.value_dim))?;
        // Tensors are checked, and rows without a token are not read.
        unsafe {
            stats::prepass::launch_unchecked(
                &self.client,
                count,
                CubeDim::new_1d(stats::UNITS as u32),
                self.address_type(&[
                    &saved.forward.out.handle,
                    &rounding.handle,
                    &saved.d_out.handle,
                ]),
                stats::LANES,
                self.arg(&saved.forward.out, stats::LANES),
                self.arg(rounding, stats::LANES),
                self.arg(&saved.d_out, stats::LANES),
                self.floats(&saved.forward.lse),
                self.floats(&saved.d_lse),
                self.stats_arg(&filled),
                rows as u32,
                shape.num_heads as u32,
                shape.seq_q as u32,
                shape.value_dim,
                saved.forward.rounding.is_some(),
                self.dtype,
            )
        };
        Ok(filled)
    }

    /// What kernels of the pass of `of` have in common.
    pub(super) fn config(&self, of: &Indexed) -> Config {
        let shape = self.problem.shape();
        Config {
            owned: of.owned,
            visited: Tile {
                rows: self.choice.visited_rows,
                ..of.owned
            },
            unit: self.choice.unit,
            head_dim: shape.head_dim,
            value_dim: shape.value_dim,
            rounding: false,
            results: Rounding::of(self.client.name(), self.dtype),
            keys: false,
            values: false,
            kept_bands: 0,
            splits: false,
            parts: 1,
            instructions: false,
            products: self.choice.products,
            slots: 0,
            brain: self.dtype == ElemType::Float(FloatKind::BF16),
        }
    }

    /// Rows of all heads and items of queries.
    pub(super) fn rows(&self) -> usize {
        let shape = self.problem.shape();
        shape.batch * shape.num_heads * shape.seq_q
    }

    /// A tensor in vectors of `lanes` elements.
    pub(super) fn arg(&self, tensor: &DeviceTensor, lanes: usize) -> VectorTensorArg {
        tensor_arg(tensor, (lanes, self.dtype))
    }

    pub(super) fn floats(&self, handle: &Handle) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(handle.clone(), self.rows()) }
    }

    pub(super) fn stats_arg(&self, stats: &Handle) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(stats.clone(), 2 * self.rows()) }
    }

    pub(super) fn address_type(&self, handles: &[&Handle]) -> AddressType {
        address_type(
            handles.iter().map(|handle| handle.size()),
            self.dtype.size(),
        )
    }

    /// The cubes of a kernel that owns queries, one for each tile.
    pub(super) fn query_grid(&self, of: &Indexed) -> Result<CubeCount, CubeError> {
        self.grid(self.query_tiles(of))
    }

    /// Tiles of queries of all sequences and heads.
    pub(super) fn query_tiles(&self, of: &Indexed) -> usize {
        of.tiles.rows * self.problem.shape().num_heads
    }

    /// The cubes of a kernel that owns the keys of `kv_heads` heads.
    pub(super) fn key_grid(&self, kv_heads: usize) -> Result<CubeCount, CubeError> {
        self.grid(self.training.tiles.columns * kv_heads)
    }

    /// A grid of at least `cubes`; what is beyond finds nothing to do.
    pub(super) fn grid(&self, cubes: usize) -> Result<CubeCount, CubeError> {
        grid(&self.client, cubes)
    }
}

/// A grid of at least `cubes`.
pub(super) fn grid(client: &Client, cubes: usize) -> Result<CubeCount, CubeError> {
    let hardware = &client.properties().hardware;
    let (width, height) = (
        hardware.max_cube_count.0 as usize,
        hardware.max_cube_count.1 as usize,
    );
    let accepted = width.saturating_mul(height).min(u32::MAX as usize / 2);
    if cubes > accepted {
        return Err(CubeError::Grid {
            device: client.name().to_owned(),
            seen: cubes,
            accepted,
        });
    }
    let cubes = cubes.max(1);
    let y = cubes.div_ceil(width);
    Ok(CubeCount::Static(cubes.div_ceil(y) as u32, y as u32, 1))
}

/// Addresses that reach the last element of buffers of `bytes`; index and statistics are never longer than 32 bits count.
pub(super) fn address_type(bytes: impl Iterator<Item = u64>, element: usize) -> AddressType {
    let elements = bytes.max().unwrap_or(0) / element as u64;
    AddressType::from_len(usize::try_from(elements).unwrap_or(usize::MAX))
}

/// The largest number that both are multiples of.
pub(super) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use cubecl::ir::AddressType;

    use super::address_type;

    #[test]
    fn buffers_beyond_32_bits_have_addresses_of_64() {
        let most = u64::from(u32::MAX);
        for (element, bytes) in [(2, 2 * most), (4, 4 * most)] {
            let of = |bytes: &[u64]| address_type(bytes.iter().copied(), element);
            assert_eq!(of(&[]), AddressType::U32);
            assert_eq!(of(&[bytes, 8]), AddressType::U32);
            assert_eq!(of(&[8, bytes + element as u64, 8]), AddressType::U64);
        }
    }
}
