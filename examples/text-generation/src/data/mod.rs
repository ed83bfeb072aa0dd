//! Text in, batches out: the corpus, the order in which it is read, and the n-gram baselines.

mod cargo_sources;
mod corpus;
mod loader;
mod ngram;
mod order;
mod text;

pub use corpus::{Corpus, CorpusError};
pub use loader::{Batch, Documents, WindowLoader};
pub use ngram::{Baselines, NGrams};
pub use order::{DataOrder, even_windows};
pub use text::Text;
