//! The default corpus: Rust sources that Cargo has already put on this machine.
//!
//! Every crate named here is a dependency of this package whatever features are enabled, and there
//! is one version of it in `Cargo.lock`, so everyone who builds from the same lock file trains on
//! the same bytes.

use std::{fs, path::PathBuf};

use serde::Deserialize;

use super::{
    Corpus, Text,
    corpus::{CorpusError, read_text_files},
};

/// Crates whose sources are trained on, in the order in which they are read.
const TRAIN: [&str; 10] = [
    "burn-autodiff",
    "burn-backend",
    "burn-core",
    "burn-dataset",
    "burn-dispatch",
    "burn-flex",
    "burn-nn",
    "burn-std",
    "burn-tensor",
    "burn-train",
];

/// Crates held out for validation.
const VALID: [&str; 1] = ["burn-optim"];

/// SHA-256 of the corpus at the versions of the present `Cargo.lock`; to be renewed with them.
const SHA256: &str = "85ec005e4171b111cc96cb3b07d94d1c282921b304d5a7e0122297a0533fb77a";

/// The lock file this binary was built with.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));

/// Reads the default corpus from Cargo's source cache.
pub(super) fn open() -> Result<Corpus, CorpusError> {
    let read = |names: &[&'static str]| -> Result<Text, CorpusError> {
        let mut files = Vec::new();
        for name in names {
            files.extend(read_text_files(&source_folder(name)?, Some("rs"))?);
        }
        Ok(Text::join(files.into_iter().map(|(_, bytes)| bytes)))
    };
    let name = format!(
        "Rust sources of {} and {}",
        TRAIN.join(", "),
        VALID.join(", ")
    );
    let split = format!("by crate: {} held out for validation", VALID.join(", "));
    let mut corpus = Corpus::new(name, split, read(&TRAIN)?, read(&VALID)?);
    corpus.expected_hash = Some(SHA256);
    corpus.prompt = "/// Creates a new ".into();
    Ok(corpus)
}

/// The unpacked sources of one crate, at its locked version.
fn source_folder(name: &'static str) -> Result<PathBuf, CorpusError> {
    let version = locked_version(name)?;
    let registry = home::cargo_home()
        .map_err(CorpusError::NoCargoHome)?
        .join("registry/src");
    // One folder per registry: usually only `index.crates.io-<hash>`.
    let mut indices: Vec<PathBuf> = fs::read_dir(&registry)
        .map(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect()
        })
        .unwrap_or_default();
    indices.sort();
    indices
        .into_iter()
        .map(|index| index.join(format!("{name}-{version}/src")))
        .find(|folder| folder.is_dir())
        .ok_or(CorpusError::MissingCrate {
            name,
            version,
            registry,
        })
}

fn locked_version(name: &'static str) -> Result<String, CorpusError> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let lock: Lock = toml::from_str(LOCK).map_err(CorpusError::Lock)?;
    lock.package
        .into_iter()
        .find(|package| package.name == name)
        .map(|package| package.version)
        .ok_or(CorpusError::NotLocked { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_is_locked_once() {
        for name in TRAIN.iter().chain(&VALID) {
            let entry = format!("name = \"{name}\"\n");
            assert_eq!(LOCK.matches(&entry).count(), 1, "{name}");
        }
    }

    /// A new `Cargo.lock` may bring other sources: then `SHA256` is to be renewed.
    #[test]
    fn the_recorded_hash_is_that_of_the_locked_sources() {
        assert_eq!(open().unwrap().hash, SHA256);
    }
}
