//! The folder of a run: `artifacts/<run>`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

/// The folder of one run and what is in it.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the folder of a new run: the one named, or `<prefix>-<next number>`.
    ///
    /// # Errors
    ///
    /// Where the named run exists, or no folder can be made.
    pub fn create(artifacts: &Path, name: Option<&str>, prefix: &str) -> Result<Self> {
        let path = match name {
            Some(name) => {
                let path = artifacts.join(checked(name)?);
                ensure!(
                    !path.exists(),
                    "run `{}` exists: continue it with --resume, or choose another --run",
                    path.display()
                );
                path
            }
            None => (1..)
                .map(|number| artifacts.join(format!("{prefix}-{number}")))
                .find(|path| !path.exists())
                .expect("an infinite number of names"),
        };
        fs::create_dir_all(path.join("checkpoint"))
            .with_context(|| format!("cannot make the folder `{}`", path.display()))?;
        Ok(Self { path })
    }

    /// The folder of a run that exists: the one named, or the newest.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn open(artifacts: &Path, name: Option<&str>) -> Result<Self> {
        if let Some(name) = name {
            let run = Self {
                path: artifacts.join(checked(name)?),
            };
            ensure!(
                run.config().is_file(),
                "there is no run `{}`",
                run.path.display()
            );
            return Ok(run);
        }
        let newest = fs::read_dir(artifacts)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let run = Self {
                    path: entry.ok()?.path(),
                };
                Some((fs::metadata(run.config()).ok()?.modified().ok()?, run))
            })
            .max_by_key(|(modified, _)| *modified);
        match newest {
            Some((_, run)) => Ok(run),
            None => bail!(
                "there is no run in `{}`: train one first",
                artifacts.display()
            ),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's name.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// What the run is: a [`RunConfig`](crate::config::RunConfig).
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Model, optimizer and schedule after each interval.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// The trained model.
    pub fn model(&self) -> PathBuf {
        self.path.join("model.bpk")
    }

    /// Losses over the steps.
    pub fn loss_plot(&self) -> PathBuf {
        self.path.join("loss.svg")
    }

    /// Patterns of the layers.
    pub fn pattern_plot(&self) -> PathBuf {
        self.path.join("patterns.svg")
    }

    /// Results in words and numbers.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.md")
    }
}

/// A run's name is one folder, so that nothing outside the artifacts is touched.
fn checked(name: &str) -> Result<&str> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    ensure!(
        plain,
        "`{name}` is no name for a run: a plain folder name is accepted"
    );
    Ok(name)
}
