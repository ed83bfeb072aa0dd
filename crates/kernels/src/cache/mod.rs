//! The cache of keys and values that decoding reads: pages of one block, kept as long as a later query needs them.
//!
//! A layer's pool is `keys [pages, block, head_dim]` and `values [pages, block, value_dim]`; a page holds one block of one
//! key/value head of one sequence. [`BlockTables`] decides on the host which page holds which block, and never looks at a
//! device. Layers with the same pattern share one: the same page ids, in a pool of each layer's own.
//!
//! One step of generation:
//!
//! 1. [`BlockTables::begin`] appends tokens to sequences: it finds pages for them and gives a [`Step`].
//! 2. The caller carries out [`Step::copies`] in each layer's pools, and uploads [`Step::words`].
//! 3. Each layer writes its new keys and values (`cache_write`) and attends: items of a few tokens with `decode`, longer ones
//!    with `cache_read` and an ordinary attention call.
//! 4. [`BlockTables::commit`] frees the pages that no later query attends.
//!
//! The retention rule is the pattern's ([`Pattern::released_at`](s2_attention_pattern::Pattern::released_at)). Where it is
//! causal, a block that no later query of a key/value head attends is never needed again; other patterns are refused.
//!
//! ```
//! use s2_attention_kernels::cache::{Append, BlockTables, CacheLimits};
//! use s2_attention_pattern::Pattern;
//!
//! // A local window of 2 blocks and every 4th block before it; 16 tokens a block, 2 heads.
//! let pattern = Pattern::local_stride(2, 4, 16, 2)?;
//! let limits = CacheLimits { pages: None, max_tokens: 4096 };
//! let mut tables = BlockTables::new(pattern, limits, true)?;
//! let sequence = tables.add();
//! let step = tables.begin(&[Append { sequence, tokens: 1000 }])?; // the prompt
//! tables.commit(&step);
//! let step = tables.begin(&[Append { sequence, tokens: 1 }])?; // a token
//! assert_eq!((step.items()[0].q_len, step.items()[0].kv_len), (1, 1001));
//! tables.commit(&step);
//! assert_eq!(tables.used_pages(), tables.predicted_pages(1001)?);
//! assert!(tables.used_pages() * 3 < tables.full_pages(1001));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod begin;
mod capacity;
mod error;
mod growth;
mod layout;
mod lists;
mod pages;
mod problem;
mod step;
mod tables;

pub use error::CacheError;
pub use layout::{ENTRY_WORDS, ITEM_WORDS, TableLayout};
pub use lists::Entry;
pub use problem::{CacheProblem, CacheShape, PoolShape};
pub use step::{Append, MAX_DECODE_TOKENS, Step, StepItem, StepKind, decode_tokens};
pub use tables::{BlockTables, CacheLimits, SequenceId};
