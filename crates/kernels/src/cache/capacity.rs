//! How long a list of entries can become.

use std::collections::HashSet;

use s2_attention_pattern::Pattern;

use super::MAX_DECODE_TOKENS;

/// The most entries that a step has of a key/value head of a sequence of at most `max_tokens` tokens.
pub(super) fn capacity(pattern: &Pattern, max_tokens: usize) -> usize {
    // Heads whose queries follow the same schedules keep the same blocks.
    let mut seen = HashSet::new();
    let distinct = (0..pattern.num_kv_heads()).filter(|&kv_head| {
        let heads = pattern.heads().query_heads(kv_head);
        let mut schedules: Vec<usize> = heads.map(|head| pattern.schedule_index(head)).collect();
        schedules.sort_unstable();
        schedules.dedup();
        seen.insert(schedules)
    });
    distinct
        .map(|kv_head| longest_list(pattern, kv_head, max_tokens))
        .max()
        .unwrap_or(0)
}

/// The most entries of a list, by a walk over the blocks `n` that the first new token of a step can come to.
fn longest_list(pattern: &Pattern, kv_head: usize, max_tokens: usize) -> usize {
    let block_size = pattern.block_size();
    let (blocks, last) = (max_tokens.div_ceil(block_size), max_tokens / block_size);
    // Blocks that so many neighbouring tokens can touch.
    let touched = (MAX_DECODE_TOKENS + block_size - 2) / block_size + 1;
    // Blocks before `n` that queries from `n` on attend, and those among them that are dropped by the last block.
    let (mut kept, mut bounded) = (0, 0);
    let (mut most_kept, mut most_bounded, mut decoded) = (0, 0, 0);
    let mut dropped_at = vec![0_usize; last + 1];
    for n in 0..=last {
        kept -= dropped_at[n];
        bounded -= dropped_at[n];
        if n > 0 {
            match pattern.released_at(kv_head, n - 1) {
                Some(at) if at <= n => {}
                Some(at) if at <= last => {
                    kept += 1;
                    bounded += 1;
                    dropped_at[at] += 1;
                }
                _ => kept += 1,
            }
        }
        most_kept = most_kept.max(kept);
        most_bounded = most_bounded.max(bounded);
        decoded = decoded.max(kept + touched.min(blocks - n));
    }
    // A prefill from block `n` to block `m` holds what it leaves behind, which is what is kept at `m`, and until then what
    // is kept at `n` and dropped by `m`; and of both blocks themselves the parts that are filled.
    let prefilled = (most_kept + most_bounded + 2).min(blocks);
    decoded.max(prefilled)
}
