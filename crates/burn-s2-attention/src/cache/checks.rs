//! What a device cannot carry out of a step, found before the step begins.

use s2_attention_kernels::cache::{StepItem, StepKind, decode_tokens};

use super::KvCache;
use super::pool::Pool;
use crate::S2AttentionError;

impl KvCache {
    /// Whether the device can carry out a step of these items in every layer.
    pub(super) fn check_step(&self, items: &[StepItem]) -> Result<(), S2AttentionError> {
        let rows: usize = items.iter().map(|item| item.q_len).sum();
        // No layer need attend.
        if rows == 0 {
            return Ok(());
        }
        let of_kind = |kind| items.iter().filter(move |item| item.kind == kind);
        let (decoded, tokens) = (of_kind(StepKind::Decode).count(), decode_tokens(items));
        for (at, (group, pool)) in self.pools.iter().enumerate() {
            let alike = |(of, other): &(usize, Pool)| {
                of == group && other.layer.difference(&pool.layer).is_none()
            };
            if self.pools[..at].iter().any(alike) {
                continue;
            }
            let group = &self.groups[*group];
            let prefills = of_kind(StepKind::Prefill);
            pool.check(rows, group.sizes(items.len(), tokens), prefills)?;
            // In a mixed step they have a call of their own.
            if (1..items.len()).contains(&decoded) {
                pool.check(rows, group.sizes(decoded, tokens), [].iter())?;
            }
        }
        Ok(())
    }
}
