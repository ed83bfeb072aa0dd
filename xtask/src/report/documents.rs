//! Documents with markers, and the files that follow from them.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use s2_bench::left_out::LeftOut;
use s2_bench::record::Record;

use super::views::{Shown, View};

const BEGIN: &str = "<!-- report:";
const END: &str = "<!-- end of report -->";

/// A Markdown file with reports in it.
pub struct Document {
    /// Where it is.
    pub path: PathBuf,
    text: String,
}

/// Rows that a report shows: one run of a results file.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Relative to the root.
    file: String,
    run: String,
}

/// README and the pages of the book, those that hold reports.
pub fn documents(root: &Path) -> anyhow::Result<Vec<Document>> {
    let mut paths = vec![root.join("README.md")];
    let pages = root.join("docs");
    for entry in fs::read_dir(&pages).with_context(|| format!("{}", pages.display()))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let mut documents = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        if text.contains(BEGIN) {
            documents.push(Document { path, text });
        }
    }
    Ok(documents)
}

impl Document {
    /// The document and its pictures as they should be: paths and contents. Reports whose results have the file name of
    /// `replacement` show it instead.
    pub fn updated(
        &self,
        root: &Path,
        replacement: Option<&Source>,
    ) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let mut files = Vec::new();
        let mut text = String::new();
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once(BEGIN) {
            let (marker, after) = after
                .split_once("-->")
                .context("a report marker is not closed by -->")?;
            ensure!(
                !marker.contains('\n'),
                "{}: a report marker is one line",
                self.path.display()
            );
            let (_, after) = after
                .split_once(END)
                .with_context(|| format!("no {END} after {BEGIN}{marker}-->"))?;
            let (view, source) = parse_marker(marker)
                .with_context(|| format!("{}: {marker}", self.path.display()))?;
            let source = match replacement {
                Some(replacement) if replacement.file_name() == source.file_name() => {
                    replacement.clone()
                }
                _ => source,
            };
            let shown = view
                .show(&source, root)
                .with_context(|| format!("{}", self.path.display()))?;
            let body = match shown {
                Shown::Table(table) => table,
                Shown::Picture { svg, words } => {
                    let name = format!(
                        "{view}-{}.svg",
                        source.file_name().trim_end_matches(".jsonl")
                    );
                    let picture = root.join("docs/images").join(name);
                    let link = relative_link(&self.path, &picture)?;
                    files.push((picture, svg));
                    format!("![{words}]({link})")
                }
            };
            text += before;
            text += &format!("{BEGIN} {view} {source} -->\n{}\n{END}", body.trim_end());
            rest = after;
        }
        text += rest;
        files.insert(0, (self.path.clone(), text));
        Ok(files)
    }
}

fn parse_marker(marker: &str) -> anyhow::Result<(View, Source)> {
    match marker.split_whitespace().collect::<Vec<_>>()[..] {
        [view, file, run] => Ok((
            View::named(view)?,
            Source {
                file: file.to_owned(),
                run: run.to_owned(),
            },
        )),
        _ => bail!("a report marker names a view, a results file and a run"),
    }
}

/// The link from a document to a file, with `/` on every system.
fn relative_link(document: &Path, file: &Path) -> anyhow::Result<String> {
    let folder = document.parent().context("a document lies in a folder")?;
    let file = file
        .strip_prefix(folder)
        .with_context(|| format!("{} is not below {}", file.display(), folder.display()))?;
    let names = file.components().map(|part| match part {
        Component::Normal(name) => name.to_string_lossy(),
        other => other.as_os_str().to_string_lossy(),
    });
    Ok(names.collect::<Vec<_>>().join("/"))
}

impl Source {
    /// Results below `root`: the run named, or the last one in the file.
    pub fn new(root: &Path, file: &Path, run: Option<String>) -> anyhow::Result<Self> {
        let root = root.canonicalize()?;
        let path = root
            .join(file)
            .canonicalize()
            .with_context(|| format!("{}", file.display()))?;
        let file = path
            .strip_prefix(&root)
            .with_context(|| format!("{} is outside the repository", path.display()))?;
        let names: Vec<_> = file.iter().map(|name| name.to_string_lossy()).collect();
        let file = names.join("/");
        let run = match run {
            Some(run) => run,
            None => last_run(&path)?.with_context(|| format!("{file} holds no rows"))?,
        };
        Ok(Self { file, run })
    }

    fn file_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or(&self.file)
    }

    /// The rows of the run, of the kind that the file holds.
    pub fn rows<R: Record>(&self, root: &Path) -> anyhow::Result<Vec<R>> {
        let mut rows = R::read(&root.join(&self.file))?;
        rows.retain(|row| row.run() == self.run);
        ensure!(
            !rows.is_empty(),
            "no rows of run {} in {}",
            self.run,
            self.file
        );
        Ok(rows)
    }
}

impl Source {
    /// What the run left out, or `None` where no list was kept.
    pub fn left_out(&self, root: &Path) -> anyhow::Result<Option<Vec<LeftOut>>> {
        Ok(LeftOut::of_run(&root.join(&self.file), &self.run)?)
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.file, self.run)
    }
}

/// The run of the last row in a file, of any kind.
fn last_run(path: &Path) -> anyhow::Result<Option<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let Some(last) = text.lines().rfind(|line| !line.trim().is_empty()) else {
        return Ok(None);
    };
    let row: serde_json::Value =
        serde_json::from_str(last).with_context(|| format!("{}", path.display()))?;
    let run = row["run"].as_str();
    let run = run.with_context(|| format!("{}: a row without a run", path.display()))?;
    Ok(Some(run.to_owned()))
}
