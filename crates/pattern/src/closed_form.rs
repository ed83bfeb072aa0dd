//! From a written rule to bands, or to a table where a rule has no closed form.

use crate::bands::{Anchor, Band};
use crate::compose::{intersection, union};
use crate::config::PatternConfig;
use crate::rule::Rule;
use crate::table::BlockTable;

/// Why a rule has no closed form.
pub(crate) enum Obstacle {
    /// It contains a custom mask.
    Custom,
    /// These pieces interleave.
    Interleaved(String),
}

/// One pattern head of a configuration.
pub(crate) struct PatternHead<'a> {
    pub config: &'a PatternConfig,
    /// Global pattern head.
    pub g: usize,
}

impl PatternHead<'_> {
    /// The bands of `rule` for this head.
    pub fn bands(&self, rule: &Rule) -> Result<Vec<Band>, Obstacle> {
        let parts = match rule {
            Rule::LocalStride {
                local_blocks,
                vert_stride,
            } => {
                vec![
                    Band::all(0, *local_blocks as i64 - 1),
                    self.columns(0, *vert_stride),
                ]
            }
            Rule::Ranges {
                strides,
                range_blocks,
            } => self.ranges(strides, range_blocks),
            Rule::BidirectionalRelative {
                local_left,
                local_right,
                vert_stride,
            } => {
                let (left, right, stride) =
                    (*local_left as i64, *local_right as i64, *vert_stride as i64);
                vec![
                    Band::all(1 - right, left - 1),
                    Band::all(left, Band::OPEN_END).every(stride, Anchor::Diagonal, left - 1),
                    Band::all(Band::OPEN_START, -right).every(stride, Anchor::Diagonal, 1 - right),
                ]
            }
            Rule::BidirectionalAbsolute {
                local_left,
                local_right,
                vert_stride,
            } => vec![
                Band::all(1 - *local_right as i64, *local_left as i64 - 1),
                self.columns(Band::OPEN_START, *vert_stride),
            ],
            Rule::SlidingWindow { left, right } => vec![window(*left, *right)],
            Rule::SinkWindow {
                sink_blocks,
                left,
                right,
            } => {
                let start = if right.is_some() { Band::OPEN_START } else { 0 };
                let sink = Band {
                    column_end: *sink_blocks as i64,
                    ..Band::all(start, Band::OPEN_END)
                };
                vec![sink, window(*left, *right)]
            }
            Rule::Strided {
                vert_stride,
                causal,
            } => {
                let start = if *causal { 0 } else { Band::OPEN_START };
                vec![Band::all(0, 0), self.columns(start, *vert_stride)]
            }
            Rule::Dense { causal } => vec![dense(*causal)],
            Rule::PerHead(rules) => return self.bands(&rules[self.g]),
            Rule::Custom(_) => return Err(Obstacle::Custom),
            Rule::Union(a, b) => [self.bands(a)?, self.bands(b)?].concat(),
            Rule::Intersection(a, b) => {
                return intersection(&self.bands(a)?, &self.bands(b)?)
                    .map_err(Obstacle::Interleaved);
            }
            Rule::CausalClamp(rule) => {
                return intersection(&self.bands(rule)?, &[dense(true)])
                    .map_err(Obstacle::Interleaved);
            }
        };
        union(&parts).map_err(Obstacle::Interleaved)
    }

    /// The stride columns of this head from a distance on: `(j + g*step + offset) mod V == 0`.
    fn columns(&self, min_distance: i64, vert_stride: usize) -> Band {
        let shift = self.shift(vert_stride / self.config.num_heads);
        Band::all(min_distance, Band::OPEN_END).every(vert_stride as i64, Anchor::Column, -shift)
    }

    fn ranges(&self, strides: &[usize], range_blocks: &[usize]) -> Vec<Band> {
        let shift = self.shift(1);
        let starts = [0]
            .into_iter()
            .chain(range_blocks.iter().map(|&end| end as i64));
        let ends = range_blocks
            .iter()
            .map(|&end| end as i64 - 1)
            .chain([Band::OPEN_END]);
        let ranges = starts.zip(ends).zip(strides);
        let ranges = ranges
            .map(|((start, end), &v)| Band::all(start, end).every(v as i64, Anchor::Column, shift));
        [Band::all(0, 0)].into_iter().chain(ranges).collect()
    }

    /// `g*step + offset`, in blocks.
    fn shift(&self, default_step: usize) -> i64 {
        let step = match self.config.head_step {
            _ if self.config.homogeneous => 0,
            Some(step) => step,
            None => default_step.max(1) as i64,
        };
        self.g as i64 * step + self.config.head_offset
    }

    /// The rows of `rule` for this head over `q_blocks x kv_blocks`.
    pub fn tabulate(&self, rule: &Rule, [q_blocks, kv_blocks]: [usize; 2]) -> BlockTable {
        let source = self.source(rule);
        let rows = (0..q_blocks).map(|i| {
            let mut kept = vec![false; kv_blocks];
            source.fill(self.g, i, &mut kept);
            (0..kv_blocks as u32)
                .filter(|&j| kept[j as usize])
                .collect()
        });
        BlockTable::from_rows(kv_blocks, rows)
    }

    /// `rule` with every part in closed form that has one.
    fn source<'r>(&self, rule: &'r Rule) -> Source<'r> {
        if let Ok(bands) = self.bands(rule) {
            return Source::Bands(bands);
        }
        match rule {
            Rule::PerHead(rules) => self.source(&rules[self.g]),
            Rule::Union(a, b) => Source::Union(Box::new([self.source(a), self.source(b)])),
            Rule::Intersection(a, b) => {
                Source::Intersection(Box::new([self.source(a), self.source(b)]))
            }
            Rule::CausalClamp(rule) => Source::Intersection(Box::new([
                self.source(rule),
                Source::Bands(vec![dense(true)]),
            ])),
            Rule::Custom(mask) => Source::Custom(mask),
            _ => unreachable!("every named rule has a closed form"),
        }
    }
}

/// A rule on its way into a table.
enum Source<'r> {
    Bands(Vec<Band>),
    Custom(&'r crate::BlockMask),
    Union(Box<[Source<'r>; 2]>),
    Intersection(Box<[Source<'r>; 2]>),
}

impl Source<'_> {
    /// Sets `kept[j]` for the kept key blocks of row `i`; `kept` comes in cleared.
    fn fill(&self, g: usize, i: usize, kept: &mut [bool]) {
        match self {
            Source::Bands(bands) => {
                for band in bands {
                    band.row(i, &(0..kept.len()))
                        .iter()
                        .for_each(|j| kept[j] = true);
                }
            }
            Source::Custom(mask) => {
                kept.iter_mut()
                    .enumerate()
                    .for_each(|(j, kept)| *kept = mask.keeps(g, i, j));
            }
            Source::Union(parts) | Source::Intersection(parts) => {
                let mut other = vec![false; kept.len()];
                parts[0].fill(g, i, kept);
                parts[1].fill(g, i, &mut other);
                let both = matches!(self, Source::Intersection(_));
                for (kept, other) in kept.iter_mut().zip(other) {
                    *kept = if both { *kept && other } else { *kept || other };
                }
            }
        }
    }
}

/// Everything, or everything at or before the query.
pub(crate) fn dense(causal: bool) -> Band {
    Band::all(if causal { 0 } else { Band::OPEN_START }, Band::OPEN_END)
}

fn window(left: usize, right: Option<usize>) -> Band {
    Band::all(right.map_or(0, |right| 1 - right as i64), left as i64 - 1)
}
