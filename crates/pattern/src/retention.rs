//! Which key blocks future queries still need: the eviction rule of a KV cache.
//!
//! With `N` blocks so far, the newest included, a KV head keeps `L + (N - L)/V` of them for local +
//! stride with a pattern per KV head, `L + (N - L) * min(r, V)/V` for a pattern per query head with
//! head step 1, and all `N` where a query head of its group is dense.

use crate::bands::Band;
use crate::pattern::Pattern;
use crate::schedule::HeadSchedule;

impl HeadSchedule {
    /// The first query block from which key block `j` is never attended again: 0 where it never is,
    /// `None` where that never ends. Nothing is attended beyond the end of a table.
    pub fn released_at(&self, j: usize) -> Option<usize> {
        match (self.bands(), self.table()) {
            (Some(bands), _) => {
                let last = bands.iter().filter_map(|band| band.last_row(j)).max();
                match last {
                    Some(Band::OPEN_END) => None,
                    last => Some(last.map_or(0, |row| row as usize + 1)),
                }
            }
            (None, table) => {
                let column = table.map_or(&[][..], |table| table.column(j, &(0..table.q_blocks())));
                Some(column.last().map_or(0, |&row| row as usize + 1))
            }
        }
    }
}

impl Pattern {
    /// The first query block from which no query head of `kv_head` attends key block `j` again:
    /// from there on its keys and values can be freed. 0 where none ever does, `None` where that
    /// never ends. In absolute blocks.
    ///
    /// # Panics
    /// If `kv_head` is not below [`num_kv_heads`](Self::num_kv_heads).
    pub fn released_at(&self, kv_head: usize, j: usize) -> Option<usize> {
        let heads = self.heads().query_heads(kv_head);
        heads
            .map(|head| self.head(head).released_at(j))
            .try_fold(0, |last, at| Some(last.max(at?)))
    }

    /// The key blocks before query block `n` that query blocks from `n` on still need of `kv_head`,
    /// ascending. A cache holds these and block `n` itself while the queries of block `n` are
    /// computed.
    ///
    /// # Panics
    /// If `kv_head` is not below [`num_kv_heads`](Self::num_kv_heads).
    pub fn retained(&self, kv_head: usize, n: usize) -> impl Iterator<Item = usize> + '_ {
        (0..n).filter(move |&j| self.released_at(kv_head, j).is_none_or(|at| at > n))
    }
}
