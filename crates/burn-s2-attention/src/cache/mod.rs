//! Keys and values of tokens that came before, for decoding and for prompts that are read in parts.
//!
//! A [`KvCache`] holds pages of one block, and frees those that no later token attends: its memory follows the pattern, not the
//! length. What is computed is attention to all tokens, to rounding, and bit for bit what is computed where no page is freed
//! ([`KvCacheConfig::evict`]): blocks that no later token attends leave the lists that are read in either case. One step of any
//! number of sequences, each with any number of new tokens (a part of a prompt, or the token generated last):
//!
//! 1. [`KvCache::begin`] makes room for the tokens.
//! 2. Each layer calls [`KvCache::attend`] with their queries, keys and values;
//!    [`S2Attention::forward_cached`](crate::module::S2Attention::forward_cached) does.
//! 3. [`KvCache::commit`] frees what is not needed any more. It takes no step that a layer was left out of.
//!
//! Lengths and pages are known to the host: no call waits for the device.
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | [`KvCacheConfig`], and what a layer keeps |
//! | `kv_cache` | [`KvCache`]: what it is made of |
//! | `sequences` | its sequences: added, forked, removed, made empty |
//! | `step` | its steps: [`KvCache::begin`] and [`KvCache::commit`] |
//! | `checks` | what a device cannot carry out of a step |
//! | `attend` | the call that each layer makes in a step |
//! | `bytes` | what a cache takes, and would take |
//! | `group` | layers that share a pattern, and so their tables |
//! | `pool` | the pages of a layer |
//! | `words` | tables on the device |

mod attend;
mod bytes;
mod checks;
mod config;
mod group;
mod kv_cache;
mod pool;
mod sequences;
mod step;
mod words;

pub use config::{CacheLayer, KvCacheConfig};
pub use kv_cache::KvCache;
pub use s2_attention_kernels::cache::{
    Append, CacheError, MAX_DECODE_TOKENS, SequenceId, StepItem, StepKind,
};
pub use step::CacheStep;
