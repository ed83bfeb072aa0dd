//! The written rule, read literally: the oracle of every test, and of host reference computations.
//!
//! It reads the configuration alone and shares no code with the closed forms of
//! [`HeadSchedule`](crate::HeadSchedule).

use crate::config::PatternConfig;
use crate::rule::Rule;

/// Whether query head `head` (global index) attends key block `j` from query block `i` (absolute
/// blocks).
///
/// The configuration must be one that [`PatternConfig::build`] accepts. A custom mask attends
/// nothing outside itself.
///
/// # Panics
/// May panic or divide by zero for a configuration that `build` refuses.
pub fn attends(config: &PatternConfig, head: usize, i: usize, j: usize) -> bool {
    let (g, pattern_heads) = if config.per_kv_head {
        let r = config.num_heads / config.num_kv_heads;
        (head / r, config.num_kv_heads)
    } else {
        (head, config.num_heads)
    };
    if g + config.dense_heads >= pattern_heads {
        return !is_causal(&config.rule, g) || j <= i;
    }
    kept(config, &config.rule, g, i as i64, j as i64)
}

fn kept(config: &PatternConfig, rule: &Rule, g: usize, i: i64, j: i64) -> bool {
    let step = |default: usize| match (config.homogeneous, config.head_step) {
        (true, _) => 0,
        (false, Some(step)) => step,
        (false, None) => default as i64,
    };
    let on_stride = |vert_stride: usize| {
        let step = step((vert_stride / config.num_heads).max(1));
        (j + g as i64 * step + config.head_offset).rem_euclid(vert_stride as i64) == 0
    };
    match rule {
        Rule::LocalStride {
            local_blocks,
            vert_stride,
        } => j <= i && (i - j < *local_blocks as i64 || on_stride(*vert_stride)),
        Rule::Ranges {
            strides,
            range_blocks,
        } => {
            let range = range_blocks
                .iter()
                .position(|&end| end as i64 > i - j)
                .unwrap_or(range_blocks.len());
            let shift = g as i64 * step(1) + config.head_offset;
            j <= i && (j == i || (j - shift).rem_euclid(strides[range] as i64) == 0)
        }
        Rule::BidirectionalRelative {
            local_left,
            local_right,
            vert_stride,
        } => {
            let left = (i - j - *local_left as i64 + 1).max(0);
            let right = (j - i - *local_right as i64 + 1).max(0);
            (left + right) % *vert_stride as i64 == 0
        }
        Rule::BidirectionalAbsolute {
            local_left,
            local_right,
            vert_stride,
        } => (i - j < *local_left as i64 && j - i < *local_right as i64) || on_stride(*vert_stride),
        Rule::SlidingWindow { left, right } => in_window(i, j, *left, *right),
        Rule::SinkWindow {
            sink_blocks,
            left,
            right,
        } => {
            let allowed = right.is_some() || j <= i;
            allowed && (j < *sink_blocks as i64 || in_window(i, j, *left, *right))
        }
        Rule::Strided {
            vert_stride,
            causal,
        } => (!causal || j <= i) && (j == i || on_stride(*vert_stride)),
        Rule::Dense { causal } => !causal || j <= i,
        Rule::PerHead(rules) => kept(config, &rules[g], g, i, j),
        Rule::Custom(mask) => {
            mask.keeps(g, i as usize, j as usize) && (!mask.is_causal() || j <= i)
        }
        Rule::Union(a, b) => kept(config, a, g, i, j) || kept(config, b, g, i, j),
        Rule::Intersection(a, b) => kept(config, a, g, i, j) && kept(config, b, g, i, j),
        Rule::CausalClamp(rule) => j <= i && kept(config, rule, g, i, j),
    }
}

fn in_window(i: i64, j: i64, left: usize, right: Option<usize>) -> bool {
    i - j < left as i64 && right.map_or(j <= i, |right| j - i < right as i64)
}

fn is_causal(rule: &Rule, g: usize) -> bool {
    match rule {
        Rule::LocalStride { .. } | Rule::Ranges { .. } | Rule::CausalClamp(_) => true,
        Rule::BidirectionalRelative { .. } | Rule::BidirectionalAbsolute { .. } => false,
        Rule::SlidingWindow { right, .. } | Rule::SinkWindow { right, .. } => right.is_none(),
        Rule::Strided { causal, .. } | Rule::Dense { causal } => *causal,
        Rule::PerHead(rules) => is_causal(&rules[g], g),
        Rule::Custom(mask) => mask.is_causal(),
        Rule::Union(a, b) => is_causal(a, g) && is_causal(b, g),
        Rule::Intersection(a, b) => is_causal(a, g) || is_causal(b, g),
    }
}
