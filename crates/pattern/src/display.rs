//! One line of human text for rules and patterns.

use std::fmt::{self, Display, Formatter};

use crate::pattern::Pattern;
use crate::rule::Rule;

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let side = |causal: &bool| if *causal { "causal" } else { "bidirectional" };
        match self {
            Rule::LocalStride {
                local_blocks,
                vert_stride,
            } => write!(f, "local {local_blocks} + stride {vert_stride}"),
            Rule::Ranges {
                strides,
                range_blocks,
            } => {
                write!(f, "strides")?;
                for (stride, end) in strides.iter().zip(range_blocks) {
                    write!(f, " {stride} until {end},")?;
                }
                strides
                    .last()
                    .map_or(Ok(()), |stride| write!(f, " {stride} beyond"))
            }
            Rule::BidirectionalRelative {
                local_left,
                local_right,
                vert_stride,
            } => {
                write!(
                    f,
                    "bidirectional local {local_left}|{local_right} + relative stride {vert_stride}"
                )
            }
            Rule::BidirectionalAbsolute {
                local_left,
                local_right,
                vert_stride,
            } => {
                write!(
                    f,
                    "bidirectional local {local_left}|{local_right} + stride {vert_stride}"
                )
            }
            Rule::SlidingWindow { left, right: None } => write!(f, "window {left}"),
            Rule::SlidingWindow {
                left,
                right: Some(right),
            } => write!(f, "window {left}|{right}"),
            Rule::SinkWindow {
                sink_blocks,
                left,
                right: None,
            } => write!(f, "sink {sink_blocks} + window {left}"),
            Rule::SinkWindow {
                sink_blocks,
                left,
                right: Some(right),
            } => {
                write!(f, "sink {sink_blocks} + window {left}|{right}")
            }
            Rule::Strided {
                vert_stride,
                causal,
            } => write!(f, "{} diagonal + stride {vert_stride}", side(causal)),
            Rule::Dense { causal } => write!(f, "dense {}", side(causal)),
            Rule::PerHead(rules) => {
                let mut distinct: Vec<&Rule> = rules.iter().collect();
                distinct.dedup();
                write!(f, "per head: ")?;
                for (at, rule) in distinct.iter().take(3).enumerate() {
                    write!(f, "{}{rule}", if at > 0 { " | " } else { "" })?;
                }
                if distinct.len() > 3 {
                    write!(f, " | ... ({} rules)", rules.len())
                } else {
                    Ok(())
                }
            }
            Rule::Custom(mask) => {
                write!(
                    f,
                    "{} custom mask {}x{}",
                    side(&mask.is_causal()),
                    mask.q_blocks(),
                    mask.kv_blocks()
                )
            }
            Rule::Union(a, b) => write!(f, "({a}) or ({b})"),
            Rule::Intersection(a, b) => write!(f, "({a}) and ({b})"),
            Rule::CausalClamp(rule) => write!(f, "causal ({rule})"),
        }
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let config = self.config();
        write!(f, "{} (block {}, ", config.rule, config.block_size)?;
        match config.num_kv_heads {
            kv if kv == config.num_heads => write!(f, "{} heads", config.num_heads)?,
            kv => write!(f, "{} query / {kv} KV heads", config.num_heads)?,
        }
        if let Some(active) = &config.active_heads {
            write!(f, ", active {}..{}", active.start, active.end)?;
        }
        if config.dense_heads > 0 {
            write!(f, ", {} dense", config.dense_heads)?;
        }
        match (self.schedules().len(), config.per_kv_head) {
            (1, _) => write!(f, ", same for all heads")?,
            (_, true) => write!(f, ", per KV head")?,
            (_, false) => write!(f, ", per head")?,
        }
        if config.head_offset != 0 {
            write!(f, ", head offset {}", config.head_offset)?;
        }
        if let Some(head_step) = config.head_step {
            write!(f, ", head step {head_step}")?;
        }
        write!(f, ")")
    }
}
