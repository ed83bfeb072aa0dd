//! The cache: what it is made of.

use burn::tensor::{DType, Device};
use s2_attention_kernels::cache::{BlockTables, CacheLimits, CacheProblem, TableLayout};

use super::group::{Group, TableSizes};
use super::pool::Pool;
use super::words::DeviceWords;
use super::{CacheLayer, CacheStep, KvCacheConfig};
use crate::S2AttentionError;
use crate::functional::{
    check_cache_backend, check_cache_call, check_dtypes, check_memory, most_pages,
};

/// Rows of the largest step that a reserved cache has positions for: prompts are read in smaller parts.
const MOST_RESERVED_ROWS: usize = 1 << 22;

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
    pub(super) positions: DeviceWords,
    /// The longest sequence of any step so far, in tokens.
    pub(super) longest: usize,
    pub(super) sequences: usize,
    pub(super) config: KvCacheConfig,
    pub(super) dtype: DType,
    pub(super) device: Device,
}

impl KvCache {
    /// An empty cache for layers whose keys and values have this dtype, on this device.
    ///
    /// # Errors
    /// If there is no layer, the device has no kernels, the dtype is no float of 16, 32 or 64 bits, a pattern is not causal or
    /// too small for `max_tokens`, a size means nothing, or the device cannot carry out a step of one token, of one sequence or of
    /// all that are reserved, or there is no memory on the CPU, or no buffer on a GPU, for the pages of these. That a GPU's memory
    /// does not hold those of all layers is not known before they are written.
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
            let smallest = check_cache_layer(layer, smallest(layer, config), 1, dtype)?;
            check_cache_backend(&device, dtype, smallest)?;
        }
        let mut groups: Vec<Group> = Vec::new();
        for layer in &layers {
            if groups
                .iter()
                .all(|group| *group.tables.pattern() != layer.pattern)
            {
                let same = layers.iter().filter(|same| same.pattern == layer.pattern);
                let widest = same.map(|layer| layer.head_dim.max(layer.value_dim)).max();
                let (block_size, width) = (layer.pattern.block_size(), widest.unwrap_or(1));
                let limits = CacheLimits {
                    pages: most_pages(&device, dtype, block_size, width),
                    max_tokens: config.max_tokens,
                };
                let tables = BlockTables::new(layer.pattern.clone(), limits, config.evict)?;
                groups.push(Group::new(tables));
            }
        }
        let pools = layers.into_iter().map(|layer| {
            let group = (groups.iter()).position(|group| *group.tables.pattern() == layer.pattern);
            let group = group.unwrap_or_default();
            let pages = groups[group].most_pages(config.reserve.unwrap_or(0));
            // More than can be counted is refused before anything is allocated: pages, then a token of each sequence.
            let sequences = config.reserve.unwrap_or(1).max(1);
            for sizes in [smallest(&layer, config), groups[group].sizes(sequences, 1)] {
                let problem = check_cache_layer(&layer, sizes, pages.max(1), dtype)?;
                check_cache_call(&device, dtype, &problem)?;
            }
            Ok((group, layer, pages))
        });
        let pools: Vec<_> = pools.collect::<Result<_, S2AttentionError>>()?;
        let bytes =
            (pools.iter()).map(|(_, layer, pages)| layer.page_bytes(dtype).saturating_mul(*pages));
        check_memory(&device, bytes.fold(0, usize::saturating_add))?;
        let pools = (pools.into_iter())
            .map(|(group, layer, pages)| (group, Pool::new(layer, pages, dtype, &device)));
        let mut cache = Self {
            pools: pools.collect(),
            groups,
            step: None,
            positions: DeviceWords::default(),
            longest: 0,
            sequences: 0,
            config: config.clone(),
            dtype,
            device,
        };
        // There is no buffer of nothing.
        if let Some(sequences) = config.reserve.filter(|sequences| *sequences > 0) {
            cache.reserve(sequences);
        }
        Ok(cache)
    }

    /// Allocates what steps write beside pages, so that no step puts it elsewhere.
    fn reserve(&mut self, sequences: usize) {
        for group in &mut self.groups {
            group.reserve(sequences, &self.device);
        }
        let rows = sequences.saturating_mul(self.config.max_tokens);
        let rows = rows.min(MOST_RESERVED_ROWS);
        self.positions.write(vec![0; rows], &self.device);
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

    /// Layers.
    pub fn num_layers(&self) -> usize {
        self.pools.len()
    }

    /// Whether a layer of the cache was made for this one: with the same pattern, sizes and scale, as
    /// [`S2Attention::cache_layer`](crate::module::S2Attention::cache_layer) says them. Weights are not compared.
    ///
    /// Patterns that are clones of one another are compared without a look at what they are made of.
    ///
    /// # Errors
    /// [`S2AttentionError::Layer`] and [`S2AttentionError::OtherLayer`].
    pub fn check_layer(&self, layer: usize, given: &CacheLayer) -> Result<(), S2AttentionError> {
        let accepted = self.pools.len();
        let (_, pool) = self.pools.get(layer).ok_or(S2AttentionError::Layer {
            seen: layer,
            accepted,
        })?;
        match given.difference(&pool.layer) {
            Some((name, [seen, accepted])) => Err(S2AttentionError::OtherLayer {
                layer,
                name,
                seen,
                accepted,
            }),
            None => Ok(()),
        }
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
}

/// The sizes of the smallest table of a layer.
fn smallest(layer: &CacheLayer, config: &KvCacheConfig) -> TableSizes {
    TableSizes {
        layout: TableLayout {
            items: 1,
            kv_heads: layer.pattern.num_kv_heads(),
            capacity: 1,
        },
        decode_tokens: 1,
        max_tokens: config.max_tokens,
    }
}

/// A call on so many pages of a layer, with a token of each item: whether there can be any.
fn check_cache_layer(
    layer: &CacheLayer,
    sizes: TableSizes,
    pages: usize,
    dtype: DType,
) -> Result<CacheProblem, S2AttentionError> {
    let shape = layer.shape(sizes.layout.items, pages, sizes);
    let problem = CacheProblem::new(shape, &layer.pattern, layer.scale)?;
    if dtype != DType::F64 {
        problem.f32_scale()?;
    }
    Ok(problem)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{DType, Device};

    use super::{CacheLayer, KvCache, KvCacheConfig};
    use crate::PatternConfig;
    use crate::cache::Append;

    /// Where the tables and positions are.
    fn places(cache: &KvCache) -> Vec<*const u8> {
        let tables = cache.groups.iter().flat_map(|group| group.words());
        let words = tables.chain([&cache.positions]);
        let tensors = words.filter_map(|words| words.tensor());
        tensors
            .map(|tensor| {
                let primitive = tensor.try_into_primitive::<Flex>().unwrap();
                primitive.bytes().as_ptr()
            })
            .collect()
    }

    /// What a captured step reads stays where it is through steps of other sequences, prompts and mixed batches.
    #[test]
    fn reserved_tables_and_positions_stay_where_they_are() {
        let layers = [
            PatternConfig::dense(8, 2),
            PatternConfig::local_stride(1, 3, 8, 2),
        ];
        let layers = layers.map(|pattern| CacheLayer {
            pattern: pattern.build().unwrap(),
            head_dim: 8,
            value_dim: 8,
            scale: None,
        });
        let config = KvCacheConfig::new(100).with_reserve(Some(3));
        let mut cache = KvCache::new(layers.into(), DType::F32, &Device::flex(), &config);
        let before = (places(&cache), cache.reserved_bytes());
        assert_eq!(before.0.len(), 5);
        let ids = [(); 3].map(|()| cache.add());
        // `None` is not in the step at all.
        for lengths in [
            [None, Some(1), None],
            [Some(40), None, None],
            [Some(1), Some(1), Some(17)],
            [None, Some(0), Some(0)],
            [Some(30), Some(70), Some(70)],
            [Some(1), Some(1), Some(1)],
            [None, None, Some(12)],
            [Some(16), Some(0), None],
        ] {
            let appends = ids.into_iter().zip(lengths);
            let appends = appends.filter_map(|(sequence, tokens)| {
                Some(Append {
                    sequence,
                    tokens: tokens?,
                })
            });
            cache.begin(&appends.collect::<Vec<_>>());
            cache.commit_replayed();
            let after = (places(&cache), cache.reserved_bytes());
            assert_eq!(after, before, "{lengths:?}");
        }
    }
}
