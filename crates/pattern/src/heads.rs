//! Query heads, KV heads and pattern heads.

use std::ops::Range;

use crate::config::PatternConfig;

/// Which query heads share a KV head, and which share a pattern.
///
/// Heads are numbered from the first *active* one; only [`global_head`](Self::global_head) and
/// [`pattern_head`](Self::pattern_head) give global numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadMap {
    group_size: usize,
    first_head: usize,
    num_heads: usize,
    per_kv_head: bool,
}

impl HeadMap {
    /// Of a configuration that has been checked.
    pub(crate) fn new(config: &PatternConfig) -> Self {
        let active = config.active_heads.clone().unwrap_or(0..config.num_heads);
        Self {
            group_size: config.num_heads / config.num_kv_heads,
            first_head: active.start,
            num_heads: active.len(),
            per_kv_head: config.per_kv_head,
        }
    }

    /// Active query heads.
    pub fn num_heads(&self) -> usize {
        self.num_heads
    }

    /// KV heads of the active query heads.
    pub fn num_kv_heads(&self) -> usize {
        self.num_heads / self.group_size
    }

    /// Query heads that share one KV head, `r`.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// The KV head that query head `head` reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head / self.group_size
    }

    /// The query heads that read `kv_head`.
    pub fn query_heads(&self, kv_head: usize) -> Range<usize> {
        kv_head * self.group_size..(kv_head + 1) * self.group_size
    }

    /// The index of query head `head` among all query heads, active or not.
    pub fn global_head(&self, head: usize) -> usize {
        self.first_head + head
    }

    /// The global pattern head `g` of query head `head`: the query head itself, or its KV head
    /// where the pattern is per KV head.
    pub fn pattern_head(&self, head: usize) -> usize {
        let global = self.global_head(head);
        if self.per_kv_head {
            global / self.group_size
        } else {
            global
        }
    }
}
