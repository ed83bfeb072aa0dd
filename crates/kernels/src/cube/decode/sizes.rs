//! What the kernels of a call are told of it.

use cubecl::prelude::*;

use super::plan::record_rows;
use super::table::Sections;
use crate::cache::CacheShape;

/// Sizes of a step, of its table, and of the records that its parts leave.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::cube) struct Sizes {
    pub(in crate::cube) sections: Sections,
    pub(in crate::cube) items: u32,
    pub(in crate::cube) kv_heads: u32,
    /// Query heads of a key/value head.
    pub(in crate::cube) group: u32,
    /// Parts of a list.
    pub(in crate::cube) splits: u32,
    /// Rows of records of a part.
    pub(in crate::cube) record_rows: u32,
    /// Rows of records of an item, or 0 where they are those of the queries.
    pub(in crate::cube) item_rows: u32,
}

/// The argument of a call whose lists are read in so many parts.
pub(super) fn sizes_arg(sections: Sections, shape: &CacheShape, splits: usize) -> SizesLaunch {
    let (record_rows, item_rows) = record_rows(shape);
    SizesLaunch::new(
        sections.arg(),
        shape.items as u32,
        shape.num_kv_heads as u32,
        (shape.num_heads / shape.num_kv_heads) as u32,
        splits as u32,
        record_rows as u32,
        item_rows as u32,
    )
}
