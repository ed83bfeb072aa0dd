//! A corpus: bytes to train on, bytes to validate on, and the hash that names them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;
use walkdir::{DirEntry, WalkDir};

use super::{Text, cargo_sources};

/// Every tenth file of a folder, or the last tenth of a text, is held out.
const HOLD_OUT: usize = 10;

/// Text split into training and validation bytes.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// What was read, in words.
    pub name: String,
    /// How it was split, in words.
    pub split: String,
    /// Bytes to train on.
    pub train: Text,
    /// Bytes held out.
    pub valid: Text,
    /// SHA-256 (hex) of both splits and their lengths.
    pub hash: String,
    /// The hash everyone should see, where it is known.
    pub expected_hash: Option<&'static str>,
    /// A prompt in the style of the text.
    pub prompt: String,
}

/// Why no corpus could be read.
#[derive(Debug, Error)]
pub enum CorpusError {
    /// `--corpus` names nothing.
    #[error("corpus `{}` does not exist: pass a text file or a folder", .path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// A file or folder could not be read.
    #[error("cannot read `{}`: {source}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no text.
    #[error(
        "corpus `{}` is empty: no text in it ({skipped} files are empty or not UTF-8)",
        .path.display()
    )]
    Empty {
        /// The path given.
        path: PathBuf,
        /// Files left out.
        skipped: usize,
    },
    /// There is too little text for the windows the model reads.
    #[error(
        "the {split} split has {bytes} bytes, at least {needed} are needed \
         (windows of {context} bytes, {windows} at a time): pass a longer --corpus or a smaller --context or --batch"
    )]
    TooSmall {
        /// `training` or `validation`.
        split: &'static str,
        /// Bytes there are.
        bytes: usize,
        /// Bytes needed.
        needed: usize,
        /// Bytes the model reads at once.
        context: usize,
        /// Windows in one batch.
        windows: usize,
    },
    /// Cargo's home folder is unknown.
    #[error("Cargo's home folder is unknown ({0}): set CARGO_HOME, or pass --corpus PATH")]
    NoCargoHome(io::Error),
    /// A crate of the default corpus is not on this machine.
    #[error(
        "the sources of {name} {version} are not under `{}`: run `cargo fetch` in the project, or pass --corpus PATH",
        .registry.display()
    )]
    MissingCrate {
        /// The crate.
        name: &'static str,
        /// Its locked version.
        version: String,
        /// Where Cargo keeps sources.
        registry: PathBuf,
    },
    /// `Cargo.lock` does not name a crate of the default corpus.
    #[error("Cargo.lock does not name {name}, a part of the default corpus: pass --corpus PATH")]
    NotLocked {
        /// The crate.
        name: &'static str,
    },
    /// `Cargo.lock` is not what Cargo writes.
    #[error("cannot read Cargo.lock: {0}")]
    Lock(toml::de::Error),
}

impl Corpus {
    /// A corpus already in memory.
    pub fn new(name: String, split: String, train: Text, valid: Text) -> Self {
        let mut hasher = Sha256::new();
        for part in [&train, &valid] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(&**part);
        }
        let start = &valid[..valid.len().min(32)];
        Self {
            name,
            split,
            hash: hasher
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            expected_hash: None,
            prompt: String::from_utf8_lossy(start).into_owned(),
            train,
            valid,
        }
    }

    /// The default corpus: sources of our own dependencies in Cargo's cache, split by crate.
    ///
    /// # Errors
    ///
    /// Where a crate's sources are not on this machine.
    pub fn cargo_sources() -> Result<Self, CorpusError> {
        cargo_sources::open()
    }

    /// A text file (the last tenth is held out), or every UTF-8 file below a folder (each tenth in
    /// order of path is held out; with fewer than ten files, the last tenth of the whole text).
    ///
    /// # Errors
    ///
    /// Where nothing is there, it cannot be read, or holds no text.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        if !path.exists() {
            return Err(CorpusError::Missing { path: path.into() });
        }
        let name = path.display().to_string();
        if path.is_file() {
            let text = Text::from(read(path)?);
            if text.is_empty() {
                return Err(CorpusError::Empty {
                    path: path.into(),
                    skipped: 0,
                });
            }
            return Ok(Self::split_by_position(name, text));
        }
        let files = read_text_files(path, None)?;
        let name = format!("{name} ({} files)", files.len());
        if files.len() < HOLD_OUT {
            let text = Text::join(files.into_iter().map(|(_, text)| text));
            return Ok(Self::split_by_position(name, text));
        }
        let (mut train, mut valid) = (Vec::new(), Vec::new());
        for (index, (_, text)) in files.into_iter().enumerate() {
            let held_out = index % HOLD_OUT == HOLD_OUT - 1;
            if held_out { &mut valid } else { &mut train }.push(text);
        }
        let split = "by file: each tenth in order of path held out for validation";
        Ok(Self::new(
            name,
            split.into(),
            Text::join(train),
            Text::join(valid),
        ))
    }

    fn split_by_position(name: String, text: Text) -> Self {
        let [train, valid] = text.split_at(text.len() - text.len() / HOLD_OUT);
        let split = "by position: the last tenth held out for validation";
        Self::new(name, split.into(), train, valid)
    }

    /// Checks that both splits hold a batch of windows.
    ///
    /// # Errors
    ///
    /// Where one of them does not.
    pub fn check_size(&self, context: usize, windows: usize) -> Result<(), CorpusError> {
        // Windows of the training split start at any of `context` offsets.
        let needed = context.saturating_mul(windows.saturating_add(1));
        for (split, bytes) in [("training", &self.train), ("validation", &self.valid)] {
            if bytes.len() < needed {
                return Err(CorpusError::TooSmall {
                    split,
                    bytes: bytes.len(),
                    needed,
                    context,
                    windows,
                });
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CorpusError> {
    fs::read(path).map_err(|source| CorpusError::Read {
        path: path.into(),
        source,
    })
}

/// The UTF-8 files below `folder`, sorted by path, hidden ones left out.
pub(super) fn read_text_files(
    folder: &Path,
    extension: Option<&str>,
) -> Result<Vec<(PathBuf, Vec<u8>)>, CorpusError> {
    let (mut files, mut skipped) = (Vec::new(), 0);
    // By name inside each folder, so that the order is the same on every machine.
    let hidden = |entry: &DirEntry| {
        entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    let walk = WalkDir::new(folder).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(|entry| !hidden(entry)) {
        let entry = entry.map_err(|error| CorpusError::Read {
            path: folder.into(),
            source: error.into(),
        })?;
        let path = entry.path();
        let wanted = extension.is_none_or(|wanted| path.extension().is_some_and(|it| it == wanted));
        if !entry.file_type().is_file() || !wanted {
            continue;
        }
        let bytes = read(path)?;
        if bytes.is_empty() || str::from_utf8(&bytes).is_err() {
            skipped += 1;
            continue;
        }
        files.push((path.to_path_buf(), bytes));
    }
    if files.is_empty() {
        return Err(CorpusError::Empty {
            path: folder.into(),
            skipped,
        });
    }
    Ok(files)
}
