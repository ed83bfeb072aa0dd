//! What is refused before a launch, and the vectors that tensors are read in.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::server::Handle;

use super::{norm, product, rotation};
use crate::cube::checks::{check_dtype, check_needs};
use crate::cube::error::CubeError;

/// Bytes of a vector.
const VECTOR_BYTES: usize = 16;

/// Elements of the longest vectors that an axis is whole ones of, and that buffers begin at multiples of.
pub(super) fn lanes(client: &Client, dtype: ElemType, axis: usize, buffers: &[&Handle]) -> usize {
    let bytes = dtype.size();
    let most = (VECTOR_BYTES / bytes).min(client.properties().hardware.max_vector_size);
    let fits = |lanes: usize| {
        let starts = buffers
            .iter()
            .map(|buffer| buffer.offset_start.unwrap_or(0));
        let mut starts = starts.map(|start| start as usize);
        axis.is_multiple_of(lanes) && starts.all(|start| start.is_multiple_of(lanes * bytes))
    };
    let halves = std::iter::successors(Some(most), |lanes| Some(lanes / 2));
    halves
        .take_while(|lanes| *lanes > 1)
        .find(|lanes| fits(*lanes))
        .unwrap_or(1)
}

pub(super) fn check_counts<const N: usize>(
    counts: [(&'static str, usize, usize); N],
) -> Result<(), CubeError> {
    match counts
        .into_iter()
        .find(|(_, seen, accepted)| seen > accepted)
    {
        Some((what, seen, accepted)) => Err(CubeError::Count {
            what,
            seen,
            accepted,
        }),
        None => Ok(()),
    }
}

/// Whether the kernels for few rows run on a device in a type: [`RowProduct`](super::RowProduct), [`RowNorm`](super::RowNorm) and
/// [`RowRotation`](super::RowRotation).
///
/// # Errors
/// [`CubeError::DType`] and [`CubeError::Resource`].
pub fn check_few_rows(client: &Client, dtype: ElemType) -> Result<(), CubeError> {
    check_dtype(client, dtype)?;
    let hardware = &client.properties().hardware;
    check_needs(
        client,
        "few rows",
        [
            // One of them CubeCL's own, for sizes.
            ("buffers", 6, hardware.max_bindings as usize),
            (
                "bytes of shared memory",
                product::SHARED_BYTES,
                hardware.max_shared_memory_size,
            ),
            (
                "units a cube",
                product::UNITS,
                hardware.max_units_per_cube as usize,
            ),
        ],
    )
}

/// The largest of all kernels here.
const _: () = assert!(product::UNITS >= norm::UNITS && product::UNITS >= rotation::UNITS);
const _: () = assert!(product::SHARED_BYTES >= norm::SHARED_BYTES);
