//! A validated and compiled pattern.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::closed_form::{Obstacle, PatternHead, dense};
use crate::config::PatternConfig;
use crate::error::PatternError;
use crate::heads::HeadMap;
use crate::predicate;
use crate::rule::Rule;
use crate::schedule::HeadSchedule;

/// Which key blocks every query block of every head attends.
///
/// Cheap to clone. Two patterns are equal when their configurations are. As data a pattern is its
/// [`PatternConfig`]. Heads are those of the *active* slice, numbered from 0; see [`HeadMap`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "PatternConfig", into = "PatternConfig")]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    config: PatternConfig,
    heads: HeadMap,
    /// Each distinct schedule once.
    schedules: Vec<HeadSchedule>,
    /// The schedule of each active query head.
    schedule_of_head: Vec<usize>,
}

impl Pattern {
    /// Validates and compiles a configuration.
    ///
    /// # Errors
    /// Any parameter that means nothing, and a composition that has neither closed form nor
    /// `table_blocks`.
    pub fn new(config: PatternConfig) -> Result<Self, PatternError> {
        config.check()?;
        let heads = HeadMap::new(&config);
        let mut known: HashMap<HeadSchedule, usize> = HashMap::new();
        let mut schedule_of_head: Vec<usize> = Vec::with_capacity(heads.num_heads());
        for head in 0..heads.num_heads() {
            let g = heads.pattern_head(head);
            let index = if head > 0 && heads.pattern_head(head - 1) == g {
                schedule_of_head[head - 1]
            } else {
                let next = known.len();
                *known.entry(compile(&config, g)?).or_insert(next)
            };
            schedule_of_head.push(index);
        }
        let mut schedules: Vec<_> = known.into_iter().collect();
        schedules.sort_unstable_by_key(|&(_, index)| index);
        let schedules = schedules
            .into_iter()
            .map(|(schedule, _)| schedule)
            .collect();
        Ok(Self(Arc::new(Compiled {
            config,
            heads,
            schedules,
            schedule_of_head,
        })))
    }

    /// [`Rule::LocalStride`] for `num_heads` heads; `block_size` in tokens, the rest in blocks.
    ///
    /// # Errors
    /// A zero among the arguments.
    pub fn local_stride(
        local_blocks: usize,
        vert_stride: usize,
        block_size: usize,
        num_heads: usize,
    ) -> Result<Self, PatternError> {
        PatternConfig::local_stride(local_blocks, vert_stride, block_size, num_heads).build()
    }

    /// Causal [`Rule::Dense`] for `num_heads` heads; `block_size` in tokens.
    ///
    /// # Errors
    /// A zero among the arguments.
    pub fn dense(block_size: usize, num_heads: usize) -> Result<Self, PatternError> {
        PatternConfig::dense(block_size, num_heads).build()
    }

    /// The configuration that the pattern was built from.
    pub fn config(&self) -> &PatternConfig {
        &self.0.config
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.0.config.block_size
    }

    /// Which query heads share a KV head and a pattern.
    pub fn heads(&self) -> &HeadMap {
        &self.0.heads
    }

    /// Active query heads.
    pub fn num_heads(&self) -> usize {
        self.0.heads.num_heads()
    }

    /// KV heads of the active query heads.
    pub fn num_kv_heads(&self) -> usize {
        self.0.heads.num_kv_heads()
    }

    /// Query heads that share one KV head.
    pub fn group_size(&self) -> usize {
        self.0.heads.group_size()
    }

    /// The schedule of query head `head`.
    ///
    /// # Panics
    /// If `head` is not below [`num_heads`](Self::num_heads).
    pub fn head(&self, head: usize) -> &HeadSchedule {
        &self.0.schedules[self.schedule_index(head)]
    }

    /// The distinct schedules. Heads that attend the same blocks share one.
    pub fn schedules(&self) -> &[HeadSchedule] {
        &self.0.schedules
    }

    /// Which of [`schedules`](Self::schedules) query head `head` follows.
    ///
    /// # Panics
    /// If `head` is not below [`num_heads`](Self::num_heads).
    pub fn schedule_index(&self, head: usize) -> usize {
        self.0.schedule_of_head[head]
    }

    /// The written rule: whether query head `head` attends key block `j` from query block `i`.
    /// Reads the configuration alone, never the closed form: for tests and reference computations.
    pub fn attends(&self, head: usize, i: usize, j: usize) -> bool {
        predicate::attends(&self.0.config, self.0.heads.global_head(head), i, j)
    }

    /// Whether all heads are causal.
    pub fn is_causal(&self) -> bool {
        self.0.schedules.iter().all(HeadSchedule::is_causal)
    }

    /// Whether all heads attend every block that causality allows.
    pub fn is_dense(&self) -> bool {
        self.0.schedules.iter().all(HeadSchedule::is_dense)
    }

    /// The query and key blocks that the tables of this pattern cover; `None` where all heads have
    /// a closed form, which covers any length.
    pub fn max_blocks(&self) -> Option<(usize, usize)> {
        let tables = self.0.schedules.iter().filter_map(HeadSchedule::table);
        tables
            .map(|table| (table.q_blocks(), table.kv_blocks()))
            .reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
    }

    /// Bytes of the compiled pattern: bands or tables, and the schedule of each head.
    pub fn metadata_bytes(&self) -> usize {
        size_of::<Compiled>()
            + self
                .0
                .schedules
                .iter()
                .map(HeadSchedule::bytes)
                .sum::<usize>()
            + size_of_val(&self.0.schedule_of_head[..])
    }
}

/// The schedule of pattern head `g`.
fn compile(config: &PatternConfig, g: usize) -> Result<HeadSchedule, PatternError> {
    let causal = config.rule.is_causal(g)?;
    if g + config.dense_heads >= config.pattern_heads() {
        return Ok(HeadSchedule::from_bands(causal, vec![dense(causal)]));
    }
    let head = PatternHead { config, g };
    let obstacle = match head.bands(&config.rule) {
        Ok(bands) => return Ok(HeadSchedule::from_bands(causal, bands)),
        Err(obstacle) => obstacle,
    };
    match (table_extent(config, g), obstacle) {
        (Some(extent), _) => Ok(HeadSchedule::from_table(
            causal,
            head.tabulate(&config.rule, extent),
        )),
        (None, Obstacle::Interleaved(reason)) => {
            Err(PatternError::NoClosedForm { head: g, reason })
        }
        (None, Obstacle::Custom) => unreachable!("a custom mask has an extent"),
    }
}

/// Query and key blocks of the table of head `g`: at most `table_blocks`, and at most what its
/// custom masks cover.
fn table_extent(config: &PatternConfig, g: usize) -> Option<[usize; 2]> {
    let given = config.table_blocks.map(|blocks| [blocks, blocks]);
    smaller(given, custom_extent(&config.rule, g))
}

fn custom_extent(rule: &Rule, g: usize) -> Option<[usize; 2]> {
    match rule {
        Rule::Custom(mask) => Some([mask.q_blocks(), mask.kv_blocks()]),
        Rule::PerHead(rules) => custom_extent(&rules[g], g),
        Rule::Union(a, b) | Rule::Intersection(a, b) => {
            smaller(custom_extent(a, g), custom_extent(b, g))
        }
        Rule::CausalClamp(rule) => custom_extent(rule, g),
        _ => None,
    }
}

fn smaller(a: Option<[usize; 2]>, b: Option<[usize; 2]>) -> Option<[usize; 2]> {
    match (a, b) {
        (Some(a), Some(b)) => Some([a[0].min(b[0]), a[1].min(b[1])]),
        (a, b) => a.or(b),
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.config == other.0.config
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.config.hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

impl TryFrom<PatternConfig> for Pattern {
    type Error = PatternError;

    fn try_from(config: PatternConfig) -> Result<Self, PatternError> {
        Self::new(config)
    }
}

impl From<Pattern> for PatternConfig {
    fn from(pattern: Pattern) -> Self {
        pattern.0.config.clone()
    }
}
