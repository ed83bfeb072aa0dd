//! The model on the new tokens of a cache.

use burn::tensor::{DType, Int, Tensor, TensorData};

use super::HybridTransformer;
use crate::S2AttentionError;
use crate::cache::{KvCache, KvCacheConfig};
use crate::module::layers;

impl HybridTransformer {
    /// An empty cache for all layers, of the type and on the device of the parameters.
    ///
    /// # Errors
    ///
    /// As [`KvCache::try_new`].
    pub fn try_kv_cache(&self, config: &KvCacheConfig) -> Result<KvCache, S2AttentionError> {
        let layers = self
            .layers
            .iter()
            .map(|layer| layer.attention.cache_layer());
        let embedding = self.embedding.weight.val();
        KvCache::try_new(
            layers.collect(),
            embedding.dtype(),
            &embedding.device(),
            config,
        )
    }

    /// Same as [`try_kv_cache`](Self::try_kv_cache).
    ///
    /// # Panics
    ///
    /// With the text of the error that [`try_kv_cache`](Self::try_kv_cache) returns.
    pub fn kv_cache(&self, config: &KvCacheConfig) -> KvCache {
        self.try_kv_cache(config)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether a cache was made for the layers of this model, or for equal ones: see [`KvCache::check_layer`].
    ///
    /// # Errors
    ///
    /// [`S2AttentionError::Layers`] and [`S2AttentionError::OtherLayer`].
    pub fn check_cache(&self, cache: &KvCache) -> Result<(), S2AttentionError> {
        let (seen, accepted) = (self.layers.len(), cache.num_layers());
        if seen != accepted {
            return Err(S2AttentionError::Layers { seen, accepted });
        }
        let mut layers = self.layers.iter().enumerate();
        layers
            .try_for_each(|(index, layer)| cache.check_layer(index, &layer.attention.cache_layer()))
    }

    /// Logits of the token after each new token of the step that `cache` is in.
    ///
    /// Nothing in it waits for the device, and a step of decoded tokens sends nothing to it: `cache` holds the tables and
    /// positions in buffers that stay the same. It can be captured as a graph where the cache is
    /// [reserved](KvCacheConfig::reserve), and replayed for it and for later steps of the same sequences with one token
    /// each, which [`KvCache::commit_replayed`] ends. Recording is not running: what a graph hands out before its first replay
    /// is not the step's.
    ///
    /// ```
    /// use burn::tensor::{Device, Int, Tensor};
    /// use burn_s2_attention::cache::{Append, KvCacheConfig};
    /// use burn_s2_attention::model::HybridTransformerConfig;
    /// use burn_s2_attention::{LayerSchedule, PatternConfig};
    ///
    /// # if cfg!(feature = "flex") {
    /// let layers = LayerSchedule::new(PatternConfig::local_stride(2, 4, 16, 4));
    /// let model = HybridTransformerConfig::new(256, 64, 2, 4, layers).init(&Device::default());
    /// let mut cache = model.kv_cache(&KvCacheConfig::new(1000));
    /// let [a, b] = [cache.add(), cache.add()];
    /// // 100 tokens of one sequence and 20 of another, packed; then one more of each.
    /// for [of_a, of_b] in [[100, 20], [1, 1]] {
    ///     let append = |(sequence, tokens)| Append { sequence, tokens };
    ///     let step = cache.begin(&[(a, of_a), (b, of_b)].map(append));
    ///     let tokens = Tensor::<2, Int>::zeros([1, step.rows()], &Device::default());
    ///     assert_eq!(model.forward_cached(tokens, &mut cache).dims(), [1, of_a + of_b, 256]);
    ///     cache.commit();
    /// }
    /// # }
    /// ```
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[1, rows]`, values below `vocab_size`: the rows of [`CacheStep`](crate::cache::CacheStep)
    /// - output: `[1, rows, vocab_size]`
    ///
    /// # Panics
    ///
    /// If [`check_cache`](Self::check_cache) refuses the cache, and as
    /// [`S2Attention::forward_cached`](crate::module::S2Attention::forward_cached).
    pub fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3> {
        self.logits(self.hidden_states_cached(tokens, cache))
    }

    /// [`hidden_states`](Self::hidden_states) of the new tokens of the step that `cache` is in.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[1, rows]`, values below `vocab_size`
    /// - output: `[1, rows, d_model]`
    ///
    /// # Panics
    ///
    /// As [`forward_cached`](Self::forward_cached).
    pub fn hidden_states_cached(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3> {
        self.check_cache(cache)
            .unwrap_or_else(|error| panic!("{error}"));
        let layers = self.layers.iter().enumerate();
        let x = layers.fold(self.embed(tokens), |x, (index, layer)| {
            layer.forward_cached(x, cache, index)
        });
        layers::norm(&self.norm, x)
    }

    /// [`logits`](Self::logits) of some rows only: those of a long prompt take more memory than its keys and values.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[1, rows, d_model]`; `rows` are numbers below that
    /// - output: `[rows.len(), vocab_size]`
    pub(super) fn logits_of(&self, hidden: Tensor<3>, rows: &[usize]) -> Tensor<2> {
        let all = rows.iter().copied().eq(0..hidden.dims()[1]);
        let hidden = if all {
            hidden
        } else {
            let numbers: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
            let numbers = TensorData::new(numbers, [rows.len()]);
            let numbers = Tensor::<1, Int>::from_data(numbers, (&hidden.device(), DType::I32));
            hidden.select(1, numbers)
        };
        self.logits(hidden).squeeze_dim(0)
    }
}
