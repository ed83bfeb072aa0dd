//! The blocks of a sequence that later queries need, and their pages: a list for each key/value head.

/// A block of a key/value head, and the page that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The absolute key block.
    pub block: u32,
    /// The page.
    pub page: u32,
    /// The first query block from which the block is never attended again; [`NEVER`] where that does not end.
    pub(super) released_at: u32,
}

/// `released_at` of blocks that are needed for ever.
pub(super) const NEVER: u32 = u32::MAX;

/// A list for each key/value head, ascending by block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lists(pub(super) Vec<Vec<Entry>>);
