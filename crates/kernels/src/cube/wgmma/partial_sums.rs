//! The buffer of sums that cubes leave which share tiles of keys, and the launch that adds them.

use std::ops::Range;

use cubecl::prelude::*;
use cubecl::server::Handle;

use super::split;
use crate::cube::attention::CubeAttention;
use crate::cube::checks::max_buffer;
use crate::cube::config::Config;
use crate::cube::error::CubeError;
use crate::cube::split::Split;
use crate::cube::tensors::KeyGradients;

/// What cubes leave that share tiles of keys.
pub(in crate::cube) struct PartialSums {
    pub(in crate::cube) handle: Handle,
    len: usize,
    /// Tiles of all heads.
    pub(in crate::cube) tiles: usize,
    /// Cubes of each.
    pub(in crate::cube) cubes: usize,
}

impl PartialSums {
    /// Of so many key/value heads.
    ///
    /// # Errors
    /// [`CubeError::Count`] for more than a buffer holds.
    pub(in crate::cube) fn new(
        call: &CubeAttention,
        plan: Split,
        kv_heads: usize,
        config: Config,
    ) -> Result<Self, CubeError> {
        let tiles = plan.tiles * kv_heads;
        let of_cube = config.owned.rows * split::sums_of_row(&config);
        let len = check_sums(
            tiles * plan.cubes * of_cube,
            max_buffer(call.client.properties()),
        )?;
        Ok(Self {
            handle: call.client.empty(len * size_of::<f32>()),
            len,
            tiles,
            cubes: plan.cubes,
        })
    }

    /// In vectors of `lanes` sums.
    pub(in crate::cube) fn arg(&self, lanes: usize) -> BufferArg {
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len / lanes) }
    }

    /// Launches what adds them to dK and dV, of some key/value heads.
    pub(in crate::cube) fn add(
        &self,
        call: &CubeAttention,
        target: &KeyGradients,
        kv_heads: &Range<usize>,
        config: Config,
    ) -> Result<(), CubeError> {
        let lanes = split::LANES;
        let (dv_at, [dv_sequence, dv_head, dv_token]) = target.dv_vectors((lanes, call.dtype));
        unsafe {
            split::add_sums::launch_unchecked(
                &call.client,
                call.grid(self.tiles * split::cubes_of_tile(&config))?,
                CubeDim::new_1d(split::UNITS as u32),
                call.address_type(&[&target.handle, &self.handle]),
                lanes,
                self.arg(lanes),
                call.arg(&target.dk_tensor(), lanes),
                call.training.arg(),
                call.problem.scale() as f32,
                dv_at,
                dv_sequence,
                dv_head,
                dv_token,
                call.problem().shape().num_heads as u32,
                kv_heads.start as u32,
                kv_heads.len() as u32,
                self.tiles as u32,
                self.cubes as u32,
                config,
                call.dtype,
            );
        }
        call.launched("add_sums", config, &target.handle)
    }
}

/// So many sums, where a buffer of `most` bytes holds them.
fn check_sums(seen: usize, most: usize) -> Result<usize, CubeError> {
    let accepted = most / size_of::<f32>();
    if seen > accepted {
        return Err(CubeError::Count {
            what: "sums of tiles that cubes share (fewer by a smaller S2_SPLIT)",
            seen,
            accepted,
        });
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::check_sums;

    #[test]
    fn sums_that_no_buffer_holds_are_refused() {
        assert_eq!(check_sums(100, 400), Ok(100));
        let why = check_sums(101, 403).unwrap_err().to_string();
        assert!(
            why.contains("S2_SPLIT) are 101") && why.ends_with("up to 100"),
            "{why}"
        );
    }
}
