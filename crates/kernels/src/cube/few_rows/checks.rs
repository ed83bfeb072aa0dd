//! What is refused before a launch, and the vectors that tensors are read in.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::server::Handle;

use super::{norm, product, rotation};
use crate::cube::checks::check_needs;
use crate::cube::error::CubeError;

/// Bytes of a vector.
const VECTOR_BYTES: usize = 16;

/// Elements of the longest vectors that an axis is whole ones of, and that buffers begin at multiples of.
pub(super) fn lanes(
    client: &Client,
    dtype: ElemType,
    axis: usize,
    buffers: &[&Handle; 3],
) -> usize {
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

/// Buffers are counted with the one that CubeCL adds for sizes.
pub(super) fn check_kernel(
    client: &Client,
    kernel: &'static str,
    buffers: usize,
    shared: usize,
) -> Result<(), CubeError> {
    let hardware = &client.properties().hardware;
    check_needs(
        client,
        kernel,
        [
            ("buffers", buffers, hardware.max_bindings as usize),
            (
                "bytes of shared memory",
                shared,
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
