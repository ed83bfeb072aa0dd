//! What is refused before a launch, and the vectors that tensors are read in.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::server::Handle;

use super::{norm, product, rotation};
use crate::cube::cache;
use crate::cube::checks::{Needs, check_dtype, check_needs};
use crate::cube::error::CubeError;

/// Elements of the longest vectors that an axis is whole ones of, and that buffers begin at multiples of.
pub(super) fn lanes(client: &Client, dtype: ElemType, axis: usize, buffers: &[&Handle]) -> usize {
    let bytes = dtype.size();
    let most = cache::lanes(client.properties(), dtype);
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

/// Whether the kernels for few rows run on a device in a type: [`RowProduct`](super::RowProduct), [`RowNorm`](super::RowNorm) and
/// [`RowRotation`](super::RowRotation).
///
/// # Errors
/// [`CubeError::DType`] and [`CubeError::Resource`].
pub fn check_few_rows(client: &Client, dtype: ElemType) -> Result<(), CubeError> {
    check_dtype(client, dtype)?;
    let needs = Needs {
        bindings: 6,
        shared: product::SHARED_BYTES,
        units: product::UNITS,
    };
    check_needs(client, "few rows", needs)
}

/// The largest of all kernels here.
const _: () = assert!(product::UNITS >= norm::UNITS && product::UNITS >= rotation::UNITS);
const _: () = assert!(product::SHARED_BYTES >= norm::SHARED_BYTES);
