//! The pages of a cache on the device: new rows are written to them, and read back before an ordinary attention call.

pub(super) mod read;
pub(super) mod write;

use cubecl::ir::{DeviceProperties, ElemType};

/// Units of a cube.
pub(super) const UNITS: usize = 128;

/// Which rows of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheSide {
    /// Keys, of `head_dim` elements.
    Keys,
    /// Values, of `value_dim` elements.
    Values,
}

/// Elements of a vector: 16 bytes of a 2-byte type where the device has vectors of 8.
pub(super) fn lanes(properties: &DeviceProperties, dtype: ElemType) -> usize {
    if dtype.size() == 2 && properties.hardware.max_vector_size >= 8 {
        8
    } else {
        4
    }
}
