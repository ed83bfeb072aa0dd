//! What can be wrong with a call of the operation, found before anything runs.

use burn::tensor::DType;
use s2_attention_kernels::ProblemError;
use s2_attention_kernels::cache::CacheError;
use thiserror::Error;

/// A call that cannot be honoured. Every message names the values seen and what would be accepted.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum S2AttentionError {
    /// Shapes, pattern, scale and positions do not fit together.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The device cannot run the call.
    #[cfg(feature = "cubecl")]
    #[error(transparent)]
    Device(#[from] s2_attention_kernels::cube::CubeError),
    /// Two tensors disagree about an axis.
    #[error("{tensor} has {axis} = {seen}, but {other} has {accepted}")]
    AxisMismatch {
        /// The tensor.
        tensor: &'static str,
        /// The axis.
        axis: &'static str,
        /// Its size.
        seen: usize,
        /// The tensor it is compared with.
        other: &'static str,
        /// The size there.
        accepted: usize,
    },
    /// The tensors have different dtypes, or one that is not a float of 16, 32 or 64 bits.
    #[error("{tensor} has dtype {seen:?}; accepted: {accepted}")]
    DType {
        /// The tensor.
        tensor: &'static str,
        /// Its dtype.
        seen: DType,
        /// What would be accepted.
        accepted: String,
    },
    /// The tensors live on different devices.
    #[error("{tensor} is on {seen}, but {other} is on {accepted}; move them to one device")]
    DeviceMismatch {
        /// The tensor.
        tensor: &'static str,
        /// Its device.
        seen: String,
        /// The tensor it is compared with.
        other: &'static str,
        /// The device there.
        accepted: String,
    },
    /// No kernels exist for this device.
    #[error(
        "S2 attention has no kernels for {device}; supported: the CPU with Burn's Flex backend (feature `flex`, \
         `Device::flex()`) and GPUs (features `cuda`, `rocm`, `metal`, `vulkan`, `wgpu`)"
    )]
    UnsupportedDevice {
        /// The device of the tensors.
        device: String,
    },
    /// A cache, or a step of it, cannot be had.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Pages for all reserved sequences would not fit in memory.
    #[error(
        "the reserved sequences of a cache need {seen} bytes, more than there are: reserve fewer, or give them fewer tokens"
    )]
    Memory {
        /// Bytes of all pages.
        seen: usize,
    },
    /// A cache of nothing.
    #[error("the cache was given no layers; it needs at least one")]
    NoLayers,
    /// A layer that the cache does not have.
    #[error("layer {seen} is not in the cache; it was made for layers below {accepted}")]
    Layer {
        /// The layer given.
        seen: usize,
        /// The number of layers.
        accepted: usize,
    },
    /// A cache of another number of layers than the model has.
    #[error(
        "the model has {seen} layers, but the cache was made for {accepted}; make it with the model's `kv_cache`"
    )]
    Layers {
        /// Layers of the model.
        seen: usize,
        /// Layers of the cache.
        accepted: usize,
    },
    /// A layer that the cache was not made for.
    #[error(
        "layer {layer} attends with {name} = {seen}, but the cache was made for {accepted}; make it with the model's \
         `kv_cache`, or of each layer's `cache_layer`"
    )]
    OtherLayer {
        /// The layer.
        layer: usize,
        /// What differs: `pattern`, `head_dim`, `value_dim` or `scale`.
        name: &'static str,
        /// What the layer has.
        seen: String,
        /// What the cache has.
        accepted: String,
    },
    /// A step that some layers were left out of.
    #[error(
        "layer {layer} has not attended in the step, {seen} of {accepted} layers have; `attend` with each before `commit`, \
         `commit_replayed` what a captured graph carried out, or `abandon` the step"
    )]
    NotAttended {
        /// The first layer that has not.
        layer: usize,
        /// Layers that have.
        seen: usize,
        /// Layers of the cache.
        accepted: usize,
    },
    /// Tokens that no step made room for.
    #[error("the cache has no open step; begin one with the new tokens of each sequence")]
    NoStep,
    /// A step in another.
    #[error(
        "the last step of the cache is not committed; commit or abandon it before the next one begins"
    )]
    OpenStep,
    /// A cache that reserved its pages has no more.
    #[error(
        "the cache reserved pages for {accepted} sequences and has them all; remove one, or reserve more"
    )]
    ReservedSequences {
        /// The sequences reserved.
        accepted: usize,
    },
    /// `combine` needs something to combine.
    #[error("combine was given no parts; it needs at least one (out, lse) pair")]
    NoParts,
}
