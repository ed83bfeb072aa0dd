//! What a report can show.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use s2_bench::cache_record::CacheRow;
use s2_bench::record::Row;
use s2_bench::token_record::TokenRow;

use super::documents::Source;
use super::host::host;
use super::left_out::List;
use super::{cache, peers, plots, tables, tokens};

/// A table or a picture of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Sparse problems, forward and training pass side by side: the short table.
    Speed,
    /// Every point of this library: the long table.
    Points,
    /// Points of this library beside everyone else's.
    Peers,
    /// The memory of the same points.
    Memory,
    /// The host's part of a call.
    Host,
    /// The problem that most others were timed at: the table of a few lines.
    Headline,
    /// Decode of this library: its rate beside that of a copy, and everyone else's times.
    Decode,
    /// Time of a token after a long prompt, with sparse layers and with dense ones.
    Tokens,
    /// Time against length, sparse and dense.
    TimeByLength,
    /// Speed-up over dense attention against density, at one length.
    SpeedupByDensity,
    /// Memory of a cache at some lengths.
    Cache,
    /// The same as a picture, beside the law and a full cache.
    CacheByLength,
}

/// What a view makes of rows.
pub enum Shown {
    /// Markdown.
    Table(String),
    /// SVG, and what it shows for readers who do not see it.
    Picture {
        /// The picture.
        svg: String,
        /// The words.
        words: &'static str,
    },
}

const NAMES: [(&str, View); 12] = [
    ("speed", View::Speed),
    ("points", View::Points),
    ("peers", View::Peers),
    ("memory", View::Memory),
    ("host", View::Host),
    ("headline", View::Headline),
    ("decode", View::Decode),
    ("tokens", View::Tokens),
    ("time-by-length", View::TimeByLength),
    ("speedup-by-density", View::SpeedupByDensity),
    ("cache", View::Cache),
    ("cache-by-length", View::CacheByLength),
];

impl View {
    /// The view of a marker.
    pub fn named(name: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        let names = NAMES.map(|(name, _)| name).join(", ");
        let (_, view) =
            found.with_context(|| format!("no view is named {name:?}: {names} are accepted"))?;
        Ok(*view)
    }

    /// Shows a run.
    ///
    /// # Errors
    /// A file that cannot be read or holds rows of another kind, or too few rows for a line.
    pub fn show(self, source: &Source, root: &Path) -> Result<Shown> {
        let rows = || source.rows::<Row>(root);
        let cache = || source.rows::<CacheRow>(root);
        Ok(match self {
            View::Speed => Shown::Table(tables::speed(&rows()?)?),
            View::Points => Shown::Table(tables::points(&rows()?)?),
            View::Peers => {
                let left_out = source.left_out(root)?;
                Shown::Table(peers::peers(&rows()?, List(left_out.as_deref()))?)
            }
            View::Memory => Shown::Table(peers::memory(&rows()?)?),
            View::Host => Shown::Table(host(&rows()?)?),
            View::Headline => Shown::Table(peers::headline(&rows()?)?),
            View::Tokens => Shown::Table(tokens::table(&source.rows::<TokenRow>(root)?)?),
            View::Decode => Shown::Table(peers::decode(&rows()?)?),
            View::TimeByLength => Shown::Picture {
                svg: plots::time_by_length(&rows()?)?,
                words: "Time of a call against length",
            },
            View::SpeedupByDensity => Shown::Picture {
                svg: plots::speedup_by_density(&rows()?)?,
                words: "Speed-up over dense attention against density",
            },
            View::Cache => Shown::Table(cache::table(&cache()?)?),
            View::CacheByLength => Shown::Picture {
                svg: cache::by_length(&cache()?)?,
                words: "Memory of the cache against length",
            },
        })
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES
            .iter()
            .find(|(_, view)| view == self)
            .map_or("", |(name, _)| name);
        f.write_str(name)
    }
}
