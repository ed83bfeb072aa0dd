//! Random configurations over all rules.

use proptest::prelude::*;
use s2_attention_pattern::{BlockMask, PatternConfig, Rule};

/// Query and key blocks that tables are given.
pub const TABLE_BLOCKS: usize = 14;

/// Any configuration: small sizes, so that every case of a formula occurs within a few dozen
/// blocks.
pub fn config() -> impl Strategy<Value = PatternConfig> {
    (1usize..=4, 1usize..=4, any::<bool>())
        .prop_flat_map(|(num_kv_heads, group_size, per_kv_head)| {
            let pattern_heads = if per_kv_head { num_kv_heads } else { num_kv_heads * group_size };
            let head_step = prop_oneof![3 => Just(None), 1 => (-4i64..=5).prop_map(Some)];
            let homogeneous = prop::bool::weighted(0.15);
            let dense_heads = prop_oneof![3 => Just(0), 1 => 0..=pattern_heads];
            let kv_range = prop_oneof![2 => Just(None), 1 => (0..num_kv_heads, 0..num_kv_heads).prop_map(Some)];
            let head = (Just(num_kv_heads), Just(group_size), Just(per_kv_head));
            (head, rules(pattern_heads), head_step, -6i64..=6, homogeneous, dense_heads, kv_range)
        })
        .prop_map(|(head, rule, head_step, head_offset, homogeneous, dense_heads, kv_range)| {
            let (num_kv_heads, group_size, per_kv_head) = head;
            PatternConfig {
                num_kv_heads,
                head_step: if homogeneous { None } else { head_step },
                head_offset,
                homogeneous,
                dense_heads,
                per_kv_head,
                active_heads: kv_range.map(|(a, b)| a.min(b) * group_size..(a.max(b) + 1) * group_size),
                ..PatternConfig::new(rule, 16, num_kv_heads * group_size)
            }
        })
}

/// One rule for all heads, or one for each.
fn rules(pattern_heads: usize) -> BoxedStrategy<Rule> {
    let any_rule = move || any::<bool>().prop_flat_map(move |causal| rule(pattern_heads, causal));
    prop_oneof![
        3 => any_rule(),
        1 => prop::collection::vec(any_rule(), pattern_heads).prop_map(Rule::PerHead),
    ]
    .boxed()
}

/// A named rule, a custom mask or a composition.
fn rule(pattern_heads: usize, causal: bool) -> BoxedStrategy<Rule> {
    let base =
        move |causal: bool| prop_oneof![8 => named(causal), 1 => custom(pattern_heads, causal)];
    let part = move |causal: bool| {
        let both = (named(causal), named(causal));
        prop_oneof![4 => base(causal).boxed(), 1 => both.prop_map(|(a, b)| a.union(b)).boxed()]
    };
    let composed = if causal {
        prop_oneof![
            (part(true), part(true)).prop_map(|(a, b)| a.union(b)),
            (part(true), part(true)).prop_map(|(a, b)| a.intersection(b)),
            (part(true), part(false)).prop_map(|(a, b)| a.intersection(b)),
            part(false).prop_map(Rule::causal_clamp),
        ]
        .boxed()
    } else {
        prop_oneof![
            (part(false), part(false)).prop_map(|(a, b)| a.union(b)),
            (part(false), part(false)).prop_map(|(a, b)| a.intersection(b)),
        ]
        .boxed()
    };
    prop_oneof![3 => base(causal), 2 => composed].boxed()
}

fn named(causal: bool) -> BoxedStrategy<Rule> {
    let blocks = || 1usize..=6;
    let stride = || 1usize..=9;
    let right = move || {
        if causal {
            Just(None).boxed()
        } else {
            blocks().prop_map(Some).boxed()
        }
    };
    let shared = prop_oneof![
        2 => (blocks(), right()).prop_map(|(left, right)| Rule::SlidingWindow { left, right }),
        2 => (blocks(), blocks(), right())
            .prop_map(|(sink_blocks, left, right)| Rule::SinkWindow { sink_blocks, left, right }),
        2 => stride().prop_map(move |vert_stride| Rule::Strided { vert_stride, causal }),
        1 => Just(Rule::Dense { causal }),
    ];
    let own = if causal {
        let local_stride =
            (blocks(), stride()).prop_map(|(local_blocks, vert_stride)| Rule::LocalStride {
                local_blocks,
                vert_stride,
            });
        let ranges = prop::collection::vec((stride(), 1usize..=5), 1..=4).prop_map(|ranges| {
            let ends = ranges.iter().scan(0, |end, (_, length)| {
                *end += length;
                Some(*end)
            });
            let range_blocks = ends.take(ranges.len() - 1).collect();
            Rule::Ranges {
                strides: ranges.iter().map(|(stride, _)| *stride).collect(),
                range_blocks,
            }
        });
        prop_oneof![local_stride, ranges].boxed()
    } else {
        (blocks(), blocks(), stride(), any::<bool>())
            .prop_map(|(local_left, local_right, vert_stride, absolute)| {
                if absolute {
                    Rule::BidirectionalAbsolute {
                        local_left,
                        local_right,
                        vert_stride,
                    }
                } else {
                    Rule::BidirectionalRelative {
                        local_left,
                        local_right,
                        vert_stride,
                    }
                }
            })
            .boxed()
    };
    prop_oneof![shared.boxed(), own].boxed()
}

fn custom(pattern_heads: usize, causal: bool) -> BoxedStrategy<Rule> {
    (
        prop_oneof![Just(1), Just(pattern_heads)],
        1usize..=TABLE_BLOCKS,
        1usize..=TABLE_BLOCKS,
    )
        .prop_flat_map(move |(heads, q_blocks, kv_blocks)| {
            let kept =
                prop::collection::vec(prop::bool::weighted(0.4), heads * q_blocks * kv_blocks);
            kept.prop_map(move |kept| {
                Rule::Custom(BlockMask::new([heads, q_blocks, kv_blocks], &kept, causal).unwrap())
            })
        })
        .boxed()
}
