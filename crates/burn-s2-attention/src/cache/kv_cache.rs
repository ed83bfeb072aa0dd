//! The cache: its sequences and its steps.

use burn::tensor::{DType, Device, Int, Tensor};
use s2_attention_kernels::cache::{
    Append, BlockTables, CacheLimits, CacheProblem, CacheShape, SequenceId, StepItem,
};

use super::group::Group;
use super::pool::Pool;
use super::words::DeviceWords;
use super::{CacheLayer, KvCacheConfig};
use crate::S2AttentionError;
use crate::functional::{check_cache_backend, check_dtypes};

/// Keys and values of the tokens of any number of sequences, for all layers of a model; see the [module](super).
///
/// Layers with equal patterns share one table of pages. What it holds carries no gradients.
///
#[cfg_attr(feature = "flex", doc = "```")]
#[cfg_attr(not(feature = "flex"), doc = "```no_run")]
/// use burn::tensor::{DType, Device, Distribution, Tensor};
/// use burn_s2_attention::PatternConfig;
/// use burn_s2_attention::cache::{Append, CacheLayer, KvCache, KvCacheConfig};
///
/// let device = Device::default();
/// // One layer: 4 query heads on 2 key/value heads of 32 elements, 2 local blocks of 16 tokens and every 4th before them.
/// let layer = CacheLayer {
///     pattern: PatternConfig::local_stride(2, 4, 16, 4).with_num_kv_heads(2).build()?,
///     head_dim: 32,
///     value_dim: 32,
///     scale: None,
/// };
/// let mut cache = KvCache::new(vec![layer], DType::F32, &device, &KvCacheConfig::new(1000));
/// let sequence = cache.add();
/// let random = |rows, heads| {
///     Tensor::<4>::random([1, rows, heads, 32], Distribution::Default, (&device, DType::F32))
/// };
/// // A prompt of 300 tokens, then one token more.
/// for tokens in [300, 1] {
///     cache.begin(&[Append { sequence, tokens }]);
///     let out = cache.attend(0, random(tokens, 4), random(tokens, 2), random(tokens, 2));
///     assert_eq!(out.dims(), [1, tokens, 4, 32]);
///     cache.commit();
/// }
/// assert_eq!(cache.memory_bytes(), cache.predicted_bytes(301));
/// # Ok::<(), burn_s2_attention::PatternError>(())
/// ```
#[derive(Debug)]
pub struct KvCache {
    pub(super) groups: Vec<Group>,
    /// The pool of each layer, and the group that it belongs to.
    pub(super) pools: Vec<(usize, Pool)>,
    pub(super) step: Option<CacheStep>,
    positions: DeviceWords,
    /// The longest sequence of any step so far, in tokens.
    longest: usize,
    sequences: usize,
    config: KvCacheConfig,
    pub(super) dtype: DType,
    pub(super) device: Device,
}

/// New tokens of some sequences. Their rows are packed in the order in which they were given: all of the first sequence, all of
/// the second, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStep {
    items: Vec<StepItem>,
}

impl CacheStep {
    /// The sequences, with their rows and positions.
    pub fn items(&self) -> &[StepItem] {
        &self.items
    }

    /// Rows of all sequences.
    pub fn rows(&self) -> usize {
        self.items.iter().map(|item| item.q_len).sum()
    }
}

impl KvCache {
    /// An empty cache for layers whose keys and values have this dtype, on this device.
    ///
    /// # Errors
    /// If there is no layer, the device has no kernels, the dtype is no float of 16, 32 or 64 bits, a pattern is not causal or
    /// too small for `max_tokens`, or a size means nothing.
    pub fn try_new(
        layers: Vec<CacheLayer>,
        dtype: DType,
        device: &Device,
        config: &KvCacheConfig,
    ) -> Result<Self, S2AttentionError> {
        if layers.is_empty() {
            return Err(S2AttentionError::NoLayers);
        }
        let device = device.clone().without_autodiff();
        check_dtypes(&[("the cache", dtype)])?;
        for layer in &layers {
            check_cache_layer(layer, dtype, &device)?;
        }
        let limits = CacheLimits {
            pages: None,
            max_tokens: config.max_tokens,
        };
        let mut groups: Vec<Group> = Vec::new();
        for layer in &layers {
            if groups
                .iter()
                .all(|group| *group.tables.pattern() != layer.pattern)
            {
                let tables = BlockTables::new(layer.pattern.clone(), limits, config.evict)?;
                groups.push(Group::new(tables));
            }
        }
        // A step fails in the largest table or in none: see `try_begin`.
        groups.sort_by_key(|group| std::cmp::Reverse(group.sequence_table_bytes()));
        let pools = layers.into_iter().map(|layer| {
            let group = (groups.iter()).position(|group| *group.tables.pattern() == layer.pattern);
            let group = group.unwrap_or_default();
            let pages = groups[group].most_pages(config.reserve.unwrap_or(0));
            (group, Pool::new(layer, pages, dtype, &device))
        });
        Ok(Self {
            pools: pools.collect(),
            groups,
            step: None,
            positions: DeviceWords::default(),
            longest: 0,
            sequences: 0,
            config: config.clone(),
            dtype,
            device,
        })
    }

    /// Same as [`try_new`](Self::try_new).
    ///
    /// # Panics
    /// With the text of the error that [`try_new`](Self::try_new) returns.
    pub fn new(
        layers: Vec<CacheLayer>,
        dtype: DType,
        device: &Device,
        config: &KvCacheConfig,
    ) -> Self {
        Self::try_new(layers, dtype, device, config).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Adds an empty sequence.
    ///
    /// # Errors
    /// [`S2AttentionError::ReservedSequences`].
    pub fn try_add(&mut self) -> Result<SequenceId, S2AttentionError> {
        self.each_group(1, |tables| Ok(tables.add()))
    }

    /// Same as [`try_add`](Self::try_add).
    ///
    /// # Panics
    /// With the text of the error that [`try_add`](Self::try_add) returns.
    pub fn add(&mut self) -> SequenceId {
        self.try_add().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Adds a sequence that begins with the tokens of another: a prompt that several share is read and kept once.
    ///
    /// # Errors
    /// [`S2AttentionError::ReservedSequences`]; of [`S2AttentionError::Cache`] an unknown sequence, and one in a step that is not
    /// committed.
    pub fn try_fork(&mut self, of: SequenceId) -> Result<SequenceId, S2AttentionError> {
        self.each_group(1, |tables| tables.fork(of))
    }

    /// Same as [`try_fork`](Self::try_fork).
    ///
    /// # Panics
    /// With the text of the error that [`try_fork`](Self::try_fork) returns.
    pub fn fork(&mut self, of: SequenceId) -> SequenceId {
        self.try_fork(of).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Frees a sequence's pages and forgets it.
    ///
    /// # Errors
    /// Of [`S2AttentionError::Cache`] an unknown sequence.
    pub fn try_remove(&mut self, sequence: SequenceId) -> Result<(), S2AttentionError> {
        self.each_group(0, |tables| tables.remove(sequence))?;
        self.sequences -= 1;
        Ok(())
    }

    /// Same as [`try_remove`](Self::try_remove).
    ///
    /// # Panics
    /// With the text of the error that [`try_remove`](Self::try_remove) returns.
    pub fn remove(&mut self, sequence: SequenceId) {
        self.try_remove(sequence)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Frees a sequence's pages and makes it empty.
    ///
    /// # Errors
    /// Of [`S2AttentionError::Cache`] an unknown sequence.
    pub fn try_reset(&mut self, sequence: SequenceId) -> Result<(), S2AttentionError> {
        self.each_group(0, |tables| tables.reset(sequence))
    }

    /// Same as [`try_reset`](Self::try_reset).
    ///
    /// # Panics
    /// With the text of the error that [`try_reset`](Self::try_reset) returns.
    pub fn reset(&mut self, sequence: SequenceId) {
        self.try_reset(sequence)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes room for new tokens of some sequences. Nothing changes where it fails.
    ///
    /// Each layer then calls [`attend`](Self::attend), and [`commit`](Self::commit) ends the step. Sequences of a step that
    /// cannot be carried out to its end are without keys: commit it, and reset or remove them.
    ///
    /// # Errors
    /// [`S2AttentionError::OpenStep`]; of [`S2AttentionError::Cache`] a step without sequences, a sequence that is unknown, given
    /// twice or would become longer than `max_tokens`, and too many tokens for one step.
    pub fn try_begin(&mut self, appends: &[Append]) -> Result<CacheStep, S2AttentionError> {
        if self.step.is_some() {
            return Err(S2AttentionError::OpenStep);
        }
        let mut items = Vec::new();
        // The tables of all groups hold the same sequences with the same lengths: a step that the first one, whose table is the
        // largest, takes is taken by all.
        for (index, group) in self.groups.iter_mut().enumerate() {
            let step = group.begin(appends, &self.device)?;
            items = step.items().to_vec();
            let copies = step.copies().to_vec();
            let pages = group.tables.num_pages();
            for (_, pool) in self.pools.iter_mut().filter(|(group, _)| *group == index) {
                pool.grow(pages);
                pool.copy(&copies);
            }
        }
        let positions = items
            .iter()
            .flat_map(|item| item.kv_len - item.q_len..item.kv_len)
            .map(|position| position as i32);
        self.positions
            .write_front(positions.collect(), &self.device);
        let longest = items.iter().map(|item| item.kv_len).max();
        self.longest = self.longest.max(longest.unwrap_or(0));
        Ok(self.step.insert(CacheStep { items }).clone())
    }

    /// Same as [`try_begin`](Self::try_begin).
    ///
    /// # Panics
    /// With the text of the error that [`try_begin`](Self::try_begin) returns.
    pub fn begin(&mut self, appends: &[Append]) -> CacheStep {
        self.try_begin(appends)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Ends the step, once all layers have attended: frees the blocks that no later token attends. Without a step it does
    /// nothing.
    pub fn commit(&mut self) {
        if self.step.take().is_some() {
            self.groups.iter_mut().for_each(Group::commit);
        }
    }

    /// The step that has begun and is not committed.
    pub fn step(&self) -> Option<&CacheStep> {
        self.step.as_ref()
    }

    /// The positions of the first `rows` rows of the step, on the device; those of rows that no sequence owns are below
    /// [`position_limit`](Self::position_limit), and mean nothing. The buffer stays the same from step to step.
    ///
    /// # Errors
    /// [`S2AttentionError::NoStep`], and an axis mismatch for more rows than any step had.
    pub(crate) fn positions(&self, rows: usize) -> Result<Tensor<1, Int>, S2AttentionError> {
        let positions = self.step.as_ref().and(self.positions.tensor());
        let positions = positions.ok_or(S2AttentionError::NoStep)?;
        let [accepted] = positions.dims();
        if rows > accepted {
            return Err(S2AttentionError::AxisMismatch {
                tensor: "x",
                axis: "rows",
                seen: rows,
                other: "the step",
                accepted,
            });
        }
        Ok(positions.narrow(0, 0, rows))
    }

    /// What all positions of this and earlier steps are below. It grows in few leaps, or not at all where the cache is reserved.
    pub(crate) fn position_limit(&self) -> usize {
        let max_tokens = self.config.max_tokens;
        if self.config.reserve.is_some() {
            return max_tokens;
        }
        self.longest.next_power_of_two().min(max_tokens)
    }

    /// Tokens of a sequence, those of a step that is not committed included.
    ///
    /// # Errors
    /// Of [`S2AttentionError::Cache`] an unknown sequence.
    pub fn tokens(&self, sequence: SequenceId) -> Result<usize, S2AttentionError> {
        Ok(self.groups[0].tables.tokens(sequence)?)
    }

    /// Sequences in the cache.
    pub fn num_sequences(&self) -> usize {
        self.sequences
    }

    /// Layers.
    pub fn num_layers(&self) -> usize {
        self.pools.len()
    }

    /// How large the cache may become.
    pub fn config(&self) -> &KvCacheConfig {
        &self.config
    }

    /// The type of keys and values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Changes the tables of each group, where there is room for `added` sequences. Their sequences are the same: the first fails
    /// or none does, and all give the same.
    fn each_group<T>(
        &mut self,
        added: usize,
        change: impl Fn(&mut BlockTables) -> Result<T, super::CacheError>,
    ) -> Result<T, S2AttentionError> {
        let sequences = self.sequences + added;
        if let Some(accepted) = self
            .config
            .reserve
            .filter(|accepted| sequences > *accepted && added > 0)
        {
            return Err(S2AttentionError::ReservedSequences { accepted });
        }
        let (first, others) = self
            .groups
            .split_first_mut()
            .ok_or(S2AttentionError::NoLayers)?;
        let result = change(&mut first.tables)?;
        for group in others {
            change(&mut group.tables)?;
        }
        self.sequences = sequences;
        Ok(result)
    }
}

/// Whether the device can decode with a layer: what no later call finds.
fn check_cache_layer(
    layer: &CacheLayer,
    dtype: DType,
    device: &Device,
) -> Result<(), S2AttentionError> {
    let smallest = CacheShape {
        items: 1,
        rows: 1,
        num_heads: layer.pattern.num_heads(),
        num_kv_heads: layer.pattern.num_kv_heads(),
        head_dim: layer.head_dim,
        value_dim: layer.value_dim,
        pages: 1,
        capacity: 1,
    };
    let problem = CacheProblem::new(smallest, &layer.pattern, layer.scale)?;
    if dtype != DType::F64 {
        problem.f32_scale()?;
    }
    check_cache_backend(device, dtype, problem)
}
